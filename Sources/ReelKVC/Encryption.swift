// The names are those of reelkv.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CReelKV
import ReelKV
import Reports

// Tenants, encrypted ones, and the index that is made anew with their keys.

@c @implementation
public func reelkv_tenant_create(
    _ store: OpaquePointer?, _ name: UnsafePointer<CChar>?, _ key: UnsafePointer<UInt8>?
) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        try store.createTenant(named: try tenant(name), key: try key.map { try encryptionKey($0) })
    }
}

@c @implementation
public func reelkv_tenants_json(
    _ store: OpaquePointer?, _ json: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> reelkv_status {
    attempt {
        let place = try output(json, "json")
        let store: Store = try Handles.object(store, "store")
        place.pointee = try ReelKVC.json(try store.tenantInfos().map(TenantReport.init))
    }
}

@c @implementation
public func reelkv_tenant_unlock(
    _ store: OpaquePointer?, _ name: UnsafePointer<CChar>?, _ key: UnsafePointer<UInt8>?
) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        try store.unlock(tenant: try tenant(name), with: try encryptionKey(try required(key, "key")))
    }
}

@c @implementation
public func reelkv_tenant_rekey(
    _ store: OpaquePointer?, _ name: UnsafePointer<CChar>?, _ key: UnsafePointer<UInt8>?
) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        try store.rekey(tenant: try tenant(name), to: try encryptionKey(try required(key, "key")))
    }
}

@c @implementation
public func reelkv_reseal(_ store: OpaquePointer?) -> reelkv_status {
    attempt {
        let store: Store = try Handles.object(store, "store")
        var options = CompactionOptions()
        options.reseals = true
        _ = try store.compact(options)
    }
}

@c @implementation
public func reelkv_rebuild_json(
    _ path: UnsafePointer<CChar>?, _ keys: UnsafePointer<reelkv_tenant_key>?, _ key_count: Int,
    _ json: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> reelkv_status {
    attempt {
        let place = try output(json, "json")
        let path = try text(path, "path")
        let given = try elements(keys, key_count, "keys", atMost: 1 << 16).map { entry in
            (try tenant(entry.tenant), try withUnsafeBytes(of: entry.key) { try EncryptionKey(bytes: $0) })
        }
        let report = try Store.rebuild(at: path, keys: Dictionary(given) { _, last in last })
        place.pointee = try ReelKVC.json(VerifyReport(report, isDryRun: false))
    }
}

private func encryptionKey(_ bytes: UnsafePointer<UInt8>) throws -> EncryptionKey {
    try EncryptionKey(bytes: UnsafeRawBufferPointer(start: bytes, count: EncryptionKey.byteCount))
}
