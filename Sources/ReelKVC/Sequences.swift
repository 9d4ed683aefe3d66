// The names are those of reelkv.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CReelKV
import ReelKV

@c @implementation
public func reelkv_sequences_json(
    _ store: OpaquePointer?, _ kind: UnsafePointer<CChar>?, _ tenant: UnsafePointer<CChar>?, _ building: Int32,
    _ json: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> reelkv_status {
    attempt {
        let place = try output(json, "json")
        let store: Store = try Handles.object(store, "store")
        let tenant = try optionalText(tenant, "tenant")
        let found = try kinds(kind).flatMap { try store.sequences($0, tenant: tenant, building: building != 0) }
        place.pointee = try ReelKVC.json(found.map(SequenceDescription.init))
    }
}

private func kinds(_ pointer: UnsafePointer<CChar>?) throws -> [SequenceKind] {
    guard let noun = try optionalText(pointer, "kind") else { return SequenceKind.allCases }
    guard let kind = SequenceKind.allCases.first(where: { $0.noun == noun }) else {
        throw Failure.invalid("'kind' must be \"video\" or \"session\", it is \"\(noun)\"")
    }
    return [kind]
}

@c @implementation
public func reelkv_sequence_json(
    _ store: OpaquePointer?, _ sequence: UnsafePointer<CChar>?, _ tenant: UnsafePointer<CChar>?,
    _ json: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> reelkv_status {
    attempt {
        let place = try output(json, "json")
        let store: Store = try Handles.object(store, "store")
        let info = try store.info(of: try sequenceName(sequence, tenant: tenant))
        place.pointee = try ReelKVC.json(SequenceDescription(info))
    }
}

@c @implementation
public func reelkv_fork(
    _ store: OpaquePointer?, _ sequence: UnsafePointer<CChar>?, _ tenant: UnsafePointer<CChar>?,
    _ new_session_name: UnsafePointer<CChar>?, _ count: UInt64
) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        let source = try sequenceName(sequence, tenant: tenant)
        try store.fork(
            source, to: try text(new_session_name, "new_session_name"),
            count: count == .max ? nil : try number(count, "count"))
    }
}

@c @implementation
public func reelkv_truncate(
    _ store: OpaquePointer?, _ session_name: UnsafePointer<CChar>?, _ tenant: UnsafePointer<CChar>?, _ count: UInt64
) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        let name = try text(session_name, "session_name")
        try store.truncate(session: name, tenant: try ReelKVC.tenant(tenant), to: try number(count, "count"))
    }
}

@c @implementation
public func reelkv_remove(
    _ store: OpaquePointer?, _ sequence: UnsafePointer<CChar>?, _ tenant: UnsafePointer<CChar>?
) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        try store.remove(try sequenceName(sequence, tenant: tenant))
    }
}

@c @implementation
public func reelkv_set_pinned(
    _ store: OpaquePointer?, _ sequence: UnsafePointer<CChar>?, _ tenant: UnsafePointer<CChar>?, _ pinned: Int32
) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        try store.setPinned(pinned != 0, try sequenceName(sequence, tenant: tenant))
    }
}
