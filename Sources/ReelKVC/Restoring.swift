// The names are those of reelkv.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CReelKV
import ReelKV

@c @implementation
public func reelkv_restore(
    _ store: OpaquePointer?, _ prefix: OpaquePointer?, _ options: UnsafePointer<reelkv_restore_options>?,
    _ layers: UnsafePointer<reelkv_layer>?, _ layer_count: Int, _ first_tokens: UnsafeMutablePointer<UInt64>?
) -> reelkv_status {
    attempt {
        let plan = try RestorePlan(store: store, prefix: prefix, options: options, memory: layers, count: layer_count)
        try plan.run { restored in
            first_tokens?[restored.layer - plan.layers.lowerBound] = UInt64(restored.firstToken)
        }
    }
}

@c @implementation
public func reelkv_restore_begin(
    _ store: OpaquePointer?, _ prefix: OpaquePointer?, _ options: UnsafePointer<reelkv_restore_options>?,
    _ layers: UnsafePointer<reelkv_layer>?, _ layer_count: Int, _ job: UnsafeMutablePointer<OpaquePointer?>?
) -> reelkv_status {
    attempt {
        let place = try output(job, "job")
        let plan = try RestorePlan(store: store, prefix: prefix, options: options, memory: layers, count: layer_count)
        place.pointee = Handles.make(try RestoreJob(plan))
    }
}

@c @implementation
public func reelkv_restore_wait(
    _ job: OpaquePointer?, _ layer: UInt32, _ first_token: UnsafeMutablePointer<UInt64>?
) -> reelkv_status {
    attempt {
        let job: RestoreJob = try Handles.object(job, "job")
        let first = try job.wait(layer: Int(layer))
        first_token?.pointee = UInt64(first)
    }
}

@c @implementation
public func reelkv_restore_end(_ job: OpaquePointer?) -> reelkv_status {
    attempt {
        guard let handle = job else { return }
        let job: RestoreJob = try Handles.object(handle, "job")
        Handles.release(handle, as: RestoreJob.self)
        try job.end()
    }
}
