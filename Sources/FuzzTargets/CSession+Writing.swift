import CReelKV

// MARK: - Writing

extension CSession {
    func callWriting() throws {
        switch input.number(in: 0...9) {
        case 0, 1: try openWriter()
        case 2...5: try append()
        case 6: try check(reelkv_writer_flush(handle(\.writers)), "writer_flush")
        case 7:
            var info = reelkv_writer_info()
            info.struct_size = size(of: reelkv_writer_info.self)
            try check(reelkv_writer_describe(handle(\.writers), &info), "writer_describe")
        case 8: try finish()
        default:
            let slot = place()
            if input.flag() { reelkv_writer_cancel(writers[slot]) } else { reelkv_writer_close(writers[slot]) }
            if input.flag() { writers[slot] = nil }
        }
    }

    private func openWriter() throws {
        let slot = place()
        reelkv_writer_close(writers[slot])
        writers[slot] = nil
        let protected = (0..<input.number(in: 0...4)).map { _ in UInt64(truncatingIfNeeded: input.size(upTo: 100)) }
        try protected.withUnsafeBufferPointer { protected in
            try withName(["exact", "vidkv-1.5-1.58", "int4", "kivi-2", "vidkv-1.75-1.66"]) { profile in
                var options = reelkv_writer_options()
                options.struct_size = size(of: reelkv_writer_options.self)
                options.profile = profile
                options.start = input.flag() ? handle(\.prefixes) : nil
                options.protected_tokens = protected.baseAddress
                options.protected_count = protected.count
                options.checks_token_count = UInt32(input.next(UInt8.self) % 4)
                options.replaces = UInt32(input.next(UInt8.self) % 3)
                options.token_count = UInt64(input.pick([0, TemplateStore.video, input.number(in: 0...99)]))
                try withSequence { sequence in
                    try withModel { model in
                        let status = withUnsafePointer(to: options) {
                            reelkv_writer_open(store, sequence, model, input.flag() ? nil : $0, &writers[slot])
                        }
                        try check(status, "writer_open")
                    }
                }
            }
        }
    }

    private func append() throws {
        try withTokens { tokens in
            var layers = (0..<input.pick([2, 2, 2, 2, 1, 0, 3])).map { _ in
                reelkv_layer(
                    key: memory.tensor(&input, tokens: tokens.count), value: memory.tensor(&input, tokens: tokens.count))
            }
            let count = layers.count
            try check(reelkv_writer_append(handle(\.writers), &tokens, &layers, count), "writer_append")
        }
    }

    private func finish() throws {
        let state = Array(input.bytes(input.number(in: 0...20)))
        let frames = (0..<input.number(in: 0...3)).map { _ in
            reelkv_frame(
                first_token: UInt64(truncatingIfNeeded: input.size(upTo: 100)),
                token_count: UInt64(truncatingIfNeeded: input.size(upTo: 100)), seconds: Double(bitPattern: input.next()))
        }
        try state.withUnsafeBytes { state in
            try frames.withUnsafeBufferPointer { frames in
                try withName(["key", "value"]) { text in
                    var provenance: [UnsafePointer<CChar>?] = [text, text]
                    try provenance.withUnsafeMutableBufferPointer { provenance in
                        var options = reelkv_finish_options()
                        options.struct_size = size(of: reelkv_finish_options.self)
                        options.engine_state = state.baseAddress
                        options.engine_state_bytes = state.count
                        options.frames = frames.baseAddress
                        options.frame_count = frames.count
                        options.provenance = UnsafePointer(provenance.baseAddress)
                        options.provenance_count = input.number(in: 0...1)
                        options.pin = UInt32(input.next(UInt8.self) % 4)
                        let status = withUnsafePointer(to: options) {
                            reelkv_writer_finish(handle(\.writers), input.flag() ? nil : $0)
                        }
                        try check(status, "writer_finish")
                    }
                }
            }
        }
    }
}

// MARK: - Sequences and administration

extension CSession {
    func callAdministration() throws {
        switch input.number(in: 0...11) {
        case 0:
            try withName(["video", "session"]) { kind in
                try withTenant { tenant in
                    var json: UnsafeMutablePointer<CChar>?
                    let status = reelkv_sequences_json(store, kind, tenant, input.flag() ? 1 : 0, &json)
                    try takeText(json, status, "sequences_json")
                }
            }
        case 1:
            try withSequence { sequence in
                try withTenant { tenant in
                    var json: UnsafeMutablePointer<CChar>?
                    let status = reelkv_sequence_json(store, sequence, tenant, &json)
                    try takeText(json, status, "sequence_json")
                }
            }
        case 2:
            let count = input.flag() ? UInt64.max : UInt64(truncatingIfNeeded: input.size(upTo: 100))
            try withSequence { sequence in
                try withTenant { tenant in
                    try withName(["t", "s", "u"]) { name in
                        try check(reelkv_fork(store, sequence, tenant, name, count), "fork")
                    }
                }
            }
        case 3:
            let count = UInt64(truncatingIfNeeded: input.size(upTo: 100))
            try withName(["s", "t"]) { name in
                try withTenant { try check(reelkv_truncate(store, name, $0, count), "truncate") }
            }
        case 4:
            try withSequence { sequence in
                try withTenant { try check(reelkv_remove(store, sequence, $0), "remove") }
            }
        case 5:
            let pins: Int32 = input.flag() ? 1 : 0
            try withSequence { sequence in
                try withTenant { try check(reelkv_set_pinned(store, sequence, $0, pins), "set_pinned") }
            }
        case 6...7: try callTenants()
        default: try callSpace()
        }
    }

    /// One of a few keys, or anything; now and then NULL.
    private func withKey(_ body: (UnsafePointer<UInt8>?) throws -> Void) rethrows {
        let choice = input.number(in: 0...7)
        if choice == 0 { return try body(nil) }
        let count = Int(REELKV_KEY_BYTES)
        let key = choice == 1 ? Array(input.bytes(count)) : Array(repeating: UInt8(choice & 1), count: count)
        guard key.count == count else { return try body(nil) }
        try key.withUnsafeBufferPointer { try body($0.baseAddress) }
    }

    private func callTenants() throws {
        switch input.number(in: 0...7) {
        case 0:
            var json: UnsafeMutablePointer<CChar>?
            let status = reelkv_tenants_json(store, &json)
            try takeText(json, status, "tenants_json")
        case 1: try check(reelkv_reseal(store), "reseal")
        case 2...3:
            try withTenant { tenant in try withKey { try check(reelkv_tenant_create(store, tenant, $0), "tenant_create") } }
        case 4...5:
            try withTenant { tenant in try withKey { try check(reelkv_tenant_unlock(store, tenant, $0), "tenant_unlock") } }
        default: try withTenant { tenant in try withKey { try check(reelkv_tenant_rekey(store, tenant, $0), "tenant_rekey") } }
        }
    }

    private func callSpace() throws {
        var json: UnsafeMutablePointer<CChar>?
        var bytes: UInt64 = 0
        switch input.number(in: 0...7) {
        case 0:
            let status = reelkv_statistics_json(store, &json)
            try takeText(json, status, "statistics_json")
        case 1:
            let status = reelkv_verify_json(
                store, input.number(in: 0...15) == 15 ? flags() : UInt32(input.number(in: 0...15)), &json)
            try takeText(json, status, "verify_json")
        case 2: try check(reelkv_evict(store, UInt64(truncatingIfNeeded: input.size(upTo: 60_000)), &bytes), "evict")
        case 3: try check(reelkv_compact(store, &bytes), "compact")
        case 4:
            let status = reelkv_scrub_step_json(store, UInt64(truncatingIfNeeded: input.size(upTo: 60_000)), &json)
            try takeText(json, status, "scrub_step_json")
        case 5:
            let status = reelkv_rebuild_json(folder + "/store", nil, 0, &json)
            try takeText(json, status, "rebuild_json")
        case 6:
            var settings = reelkv_settings()
            settings.struct_size = size(of: reelkv_settings.self)
            try check(reelkv_settings_get(store, &settings), "settings_get")
        default:
            try withName(["lru", "adaptive"]) { policy in
                var settings = reelkv_settings()
                settings.struct_size = size(of: reelkv_settings.self)
                settings.quota_bytes = UInt64(truncatingIfNeeded: input.size(upTo: 65_000) << 8)
                settings.free_bytes_min = UInt64(truncatingIfNeeded: input.size(upTo: 1000))
                settings.unused_seconds_max = UInt64(truncatingIfNeeded: input.size(upTo: 1000))
                settings.policy = policy
                try check(reelkv_settings_set(store, &settings), "settings_set")
            }
        }
    }
}
