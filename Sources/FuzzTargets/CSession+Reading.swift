import CReelKV

// MARK: - Stores and models

extension CSession {
    func callStores() throws {
        switch input.number(in: 0...5) {
        case 0:
            let slot = place()
            reelkv_store_close(stores[slot])
            stores[slot] = nil
            let path = folder + "/" + input.pick(["store", "new", "none/none", "store/index.mdb"])
            try check(reelkv_store_open(path, input.pick([0, 1, 2, 3, 4, flags()]), &stores[slot]), "open")
        case 1:
            let slot = place()
            reelkv_store_close(stores[slot])
            stores[slot] = nil
            var options = reelkv_store_options()
            options.struct_size = size(of: reelkv_store_options.self)
            options.page_tokens = UInt32(truncatingIfNeeded: input.size(upTo: 256))
            options.volume_bytes_max = UInt64(truncatingIfNeeded: input.size(upTo: 60_000) << 8)
            let path = folder + "/" + input.pick(["made", "store", "store/volumes"])
            let hasOptions = input.flag()
            let status = withUnsafePointer(to: options) {
                reelkv_store_create(path, hasOptions ? $0 : nil, &stores[slot])
            }
            try check(status, "create")
        case 2: try check(reelkv_store_sync(store), "sync")
        case 3:
            var tokens: UInt32 = 0
            try check(reelkv_store_page_tokens(store, &tokens), "page_tokens")
        case 4:
            let slot = place()
            reelkv_store_close(stores[slot])  // and leave it there, stale
        default:
            _ = reelkv_status_name(input.next())
            try check(reelkv_store_page_tokens(store, nil), "page_tokens(NULL)")
        }
    }

    func callModels() throws {
        switch input.number(in: 0...3) {
        case 0: try addModel()
        case 1:
            let usual = """
                {"layers": 2, "kv_heads": 1, "head_dim": 8, "dtype": "float16", "rope": {"theta": 100}}
                """
            let json = input.flag() ? usual : input.text(upTo: 250)
            var warnings: UnsafeMutablePointer<CChar>?
            let fingerprint = input.pick([String(repeating: "c", count: 64), "sha256:0", input.text()])
            try withName(["added", "tiny"]) { name in
                let status = reelkv_model_add_json(store, name, json, json.utf8.count, fingerprint, &warnings)
                try check(status, "model_add_json")
                reelkv_free(warnings)
            }
        case 2:
            var json: UnsafeMutablePointer<CChar>?
            let status = reelkv_models_json(store, &json)
            try takeText(json, status, "models_json")
        default:
            try withModel { try check(reelkv_model_remove(store, $0, input.flag() ? 1 : 0), "model_remove") }
        }
    }

    private func addModel() throws {
        let frequencies = (0..<input.number(in: 0...8)).map { _ in Float(bitPattern: input.next()) }
        try frequencies.withUnsafeBufferPointer { frequencies in
            var layers = (0..<input.number(in: 0...4)).map { _ in
                var layer = reelkv_layer_geometry()
                layer.struct_size = MemoryLayout<reelkv_layer_geometry>.size
                layer.kv_heads = UInt32(truncatingIfNeeded: input.size(upTo: 8))
                layer.key_dim = UInt32(truncatingIfNeeded: input.size(upTo: 32))
                layer.value_dim = UInt32(truncatingIfNeeded: input.size(upTo: 32))
                layer.rotary_pairing = UInt32(input.next(UInt8.self) % 3)
                layer.sliding_window = UInt64(truncatingIfNeeded: input.size(upTo: 64))
                layer.rotary_inverse_frequencies = input.flag() ? frequencies.baseAddress : nil
                layer.rotary_pair_count = layer.rotary_inverse_frequencies == nil ? 0 : frequencies.count
                if input.flag() { layer.rotary_sections = (input.next() % 5, input.next() % 5, input.next() % 5) }
                return layer
            }
            try layers.withUnsafeMutableBufferPointer { layers in
                try withName(["added", "tiny"]) { name in
                    var model = reelkv_model()
                    model.struct_size = size(of: reelkv_model.self)
                    model.name = name
                    model.fingerprint.0 = input.next()
                    model.dtype = UInt32(input.next(UInt8.self) % 5)
                    model.layers = UnsafePointer(layers.baseAddress)
                    model.layer_count = layers.count
                    try check(reelkv_model_add(store, &model), "model_add")
                }
            }
        }
    }
}

// MARK: - Matching and restoring

extension CSession {
    func callMatching() throws {
        switch input.number(in: 0...8) {
        case 0...2: try match()
        case 3:
            let slot = place()
            reelkv_prefix_free(prefixes[slot])
            prefixes[slot] = nil
            try withSequence { name in
                try withTenant { tenant in
                    try check(reelkv_sequence_prefix(store, name, tenant, flags(), &prefixes[slot]), "sequence_prefix")
                }
            }
        case 4:
            var info = reelkv_prefix_info()
            info.struct_size = size(of: reelkv_prefix_info.self)
            try check(reelkv_prefix_describe(handle(\.prefixes), &info), "prefix_describe")
        case 5:
            var geometry = reelkv_layer_geometry()
            geometry.struct_size = size(of: reelkv_layer_geometry.self)
            let layer = UInt32(truncatingIfNeeded: input.size(upTo: 3))
            try check(reelkv_prefix_layer(handle(\.prefixes), layer, &geometry), "prefix_layer")
        case 6:
            var state = [UInt8](repeating: 0, count: input.number(in: 0...8))
            let count = state.count
            try check(reelkv_prefix_engine_state(handle(\.prefixes), &state, count), "prefix_engine_state")
        case 7:
            var tokens: UnsafeMutablePointer<reelkv_tokens>?
            try check(reelkv_prefix_tokens(store, handle(\.prefixes), &tokens), "prefix_tokens")
            reelkv_free(tokens)
        default:
            let slot = place()
            reelkv_lease_release(leases[slot])
            leases[slot] = nil
            try check(reelkv_lease_take(store, handle(\.prefixes), &leases[slot]), "lease_take")
        }
    }

    private func match() throws {
        let slot = place()
        reelkv_prefix_free(prefixes[slot])
        prefixes[slot] = nil
        var acceptance = reelkv_acceptance()
        acceptance.struct_size = size(of: reelkv_acceptance.self)
        acceptance.key_error_max = Float(bitPattern: input.next())
        acceptance.value_error_max = Float(bitPattern: input.next())
        let accepting = input.flag()
        try withTokens { tokens in
            try withModel { model in
                try withTenant { tenant in
                    let status = withUnsafePointer(to: acceptance) {
                        reelkv_longest_prefix(store, model, tenant, &tokens, accepting ? $0 : nil, flags(), &prefixes[slot])
                    }
                    try check(status, "longest_prefix")
                }
            }
        }
    }

    func callRestoring() throws {
        switch input.number(in: 0...4) {
        case 0, 1: try restore(inBackground: false)
        case 2: try restore(inBackground: true)
        case 3:
            var first: UInt64 = 0
            let layer = UInt32(truncatingIfNeeded: input.size(upTo: 3))
            try check(reelkv_restore_wait(handle(\.jobs), layer, &first), "restore_wait")
        default:
            let slot = place()
            try check(reelkv_restore_end(jobs[slot]), "restore_end")
            if input.flag() { jobs[slot] = nil }
        }
    }

    private func restore(inBackground: Bool) throws {
        let prefix = handle(\.prefixes)
        var options = reelkv_restore_options()
        options.struct_size = size(of: reelkv_restore_options.self)
        var tokens = TemplateStore.video
        if input.flag() {
            options.first_layer = UInt32(truncatingIfNeeded: input.size(upTo: 2))
            options.layer_count = UInt32(truncatingIfNeeded: input.size(upTo: 2))
            options.first_token = UInt64(truncatingIfNeeded: input.size(upTo: 80))
            tokens = input.number(in: 0...90)
            options.token_count = UInt64(tokens)
            options.threads = UInt32(input.next(UInt8.self) % 4)
        } else {
            var info = reelkv_prefix_info()
            info.struct_size = MemoryLayout<reelkv_prefix_info>.size
            if reelkv_prefix_describe(prefix, &info) == 0 { tokens = min(Int(info.token_count), 200) }
        }
        // Two tensors at one place: what is written there does not matter, only where.
        var layers = (0..<input.pick([2, 2, 2, 1, 0, 3])).map { _ in
            reelkv_layer(key: memory.tensor(&input, tokens: tokens), value: memory.tensor(&input, tokens: tokens))
        }
        let count = layers.count
        if inBackground {
            let slot = place()
            if jobs[slot] != nil { reelkv_restore_end(jobs[slot]) }
            jobs[slot] = nil
            try check(reelkv_restore_begin(store, prefix, &options, &layers, count, &jobs[slot]), "restore_begin")
        } else {
            var first = [UInt64](repeating: 0, count: max(count, 2))
            try check(reelkv_restore(store, prefix, &options, &layers, count, &first), "restore")
        }
    }
}
