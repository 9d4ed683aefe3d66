// The names are those of reelkv.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CReelKV
import ReelKV
import Reports

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

@c @implementation
public func reelkv_statistics_json(
    _ store: OpaquePointer?, _ json: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> reelkv_status {
    attempt {
        let place = try output(json, "json")
        let store: Store = try Handles.object(store, "store")
        place.pointee = try ReelKVC.json(StatsReport(try store.statistics()))
    }
}

@c @implementation
public func reelkv_settings_get(_ store: OpaquePointer?, _ settings: UnsafeMutablePointer<reelkv_settings>?) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        let found = try store.settings()
        var given = reelkv_settings()
        given.quota_bytes = UInt64(found.quotaBytes ?? 0)
        given.free_bytes_min = UInt64(found.freeBytesMin ?? 0)
        given.unused_seconds_max = UInt64(found.unusedSecondsMax ?? 0)
        given.policy = policyNames[found.policy].flatMap { UnsafePointer($0) }
        try given.fill(settings, "settings")
    }
}

/// Text that stays for as long as the program runs.
nonisolated(unsafe) private let policyNames = Dictionary(
    uniqueKeysWithValues: EvictionPolicy.allCases.map { ($0, strdup($0.name)) })

@c @implementation
public func reelkv_settings_set(_ store: OpaquePointer?, _ settings: UnsafePointer<reelkv_settings>?) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        let given = try reelkv_settings(settings, "settings")
        let quota = try number(given.quota_bytes, "settings->quota_bytes")
        let free = try number(given.free_bytes_min, "settings->free_bytes_min")
        let seconds = try number(given.unused_seconds_max, "settings->unused_seconds_max")
        let policy = try optionalText(given.policy, "settings->policy").map { name in
            guard let policy = EvictionPolicy(name: name) else {
                let names = EvictionPolicy.allCases.map(\.name).joined(separator: ", ")
                throw Failure.invalid("'settings->policy' is \"\(name)\", it must be one of \(names)")
            }
            return policy
        }
        try store.update { settings in
            settings.quotaBytes = quota == 0 ? nil : quota
            settings.freeBytesMin = free == 0 ? nil : free
            settings.unusedSecondsMax = seconds == 0 ? nil : seconds
            if let policy { settings.policy = policy }
        }
    }
}

@c @implementation
public func reelkv_evict(
    _ store: OpaquePointer?, _ bytes: UInt64, _ evicted_bytes: UnsafeMutablePointer<UInt64>?
) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        // no store is larger than what an Int counts
        let report = try store.evict(to: Int(clamping: bytes))
        evicted_bytes?.pointee = UInt64(report.bytes)
    }
}

@c @implementation
public func reelkv_compact(_ store: OpaquePointer?, _ freed_bytes: UnsafeMutablePointer<UInt64>?) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        let report = try store.compact()
        freed_bytes?.pointee = UInt64(max(0, report.bytesFreed))
    }
}

@c @implementation
public func reelkv_verify_json(
    _ store: OpaquePointer?, _ flags: UInt32, _ json: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> reelkv_status {
    attempt {
        let place = try output(json, "json")
        let store: Store = try Handles.object(store, "store")
        let flags = reelkv_verify_flags(flags)
        let known = [REELKV_VERIFY_SKIP_PAGES, REELKV_VERIFY_QUICK, REELKV_VERIFY_REPAIR, REELKV_VERIFY_DRY_RUN]
        guard flags.rawValue & ~known.reduce(0, { $0 | $1.rawValue }) == 0 else {
            throw Failure.invalid("'flags' is \(flags.rawValue), which has bits that mean nothing")
        }
        let depth: VerificationDepth =
            flags.has(REELKV_VERIFY_SKIP_PAGES) ? .index : flags.has(REELKV_VERIFY_QUICK) ? .checksums : .tensors
        if flags.has(REELKV_VERIFY_REPAIR) || flags.has(REELKV_VERIFY_DRY_RUN) {
            let isDryRun = flags.has(REELKV_VERIFY_DRY_RUN)
            let report = try store.repair(depth: depth, isDryRun: isDryRun)
            place.pointee = try ReelKVC.json(VerifyReport(report, isDryRun: isDryRun))
        } else {
            let report = try store.verify(depth: depth, quarantining: store.access == .readWrite)
            place.pointee = try ReelKVC.json(VerifyReport(report))
        }
    }
}

extension reelkv_verify_flags {
    fileprivate func has(_ flag: Self) -> Bool { rawValue & flag.rawValue != 0 }
}

@c @implementation
public func reelkv_scrub_json(
    _ store: OpaquePointer?, _ bytes_per_second_max: UInt64, _ json: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> reelkv_status {
    attempt {
        let place = try output(json, "json")
        let store: Store = try Handles.object(store, "store")
        var options = ScrubOptions()
        options.bytesPerSecondMax = bytes_per_second_max == 0 ? nil : Int(clamping: bytes_per_second_max)
        place.pointee = try ReelKVC.json(ScrubResult(try store.scrub(options)))
    }
}

@c @implementation
public func reelkv_scrub_step_json(
    _ store: OpaquePointer?, _ bytes_max: UInt64, _ json: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> reelkv_status {
    attempt {
        let place = try output(json, "json")
        let store: Store = try Handles.object(store, "store")
        guard let step = try store.scrubStep(bytesMax: Int(clamping: bytes_max)) else {
            throw StoreError(.inUse, "another process is scrubbing the store \(store.path): leave it to that")
        }
        place.pointee = try ReelKVC.json(ScrubResult(step))
    }
}
