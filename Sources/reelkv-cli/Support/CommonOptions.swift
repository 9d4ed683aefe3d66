import ArgumentParser
import ReelKV
import Rendering
import Reports

#if canImport(Darwin)
    import Darwin
#elseif canImport(Musl)
    import Musl
#else
    import Glibc
#endif

struct StoreFolderOption: ParsableArguments {
    @Option(
        name: .customLong("store"), help: "The store's folder; by default what the environment variable REELKV_STORE names.",
        completion: .directory)
    var folder: String?

    func path() throws -> String {
        if let folder { return folder }
        guard let named = getenv("REELKV_STORE").map({ String(cString: $0) }), !named.isEmpty else {
            throw Failure("which store? Name its folder with --store DIR or in the environment variable REELKV_STORE")
        }
        return named
    }
}

struct StoreOption: ParsableArguments {
    @OptionGroup var folder: StoreFolderOption

    @Option(
        help: ArgumentHelp(
            "The key of an encrypted tenant, once for each: a file with 64 hexadecimal digits or 32 bytes; TENANT= may stand before it. By default what the environment variable REELKV_KEY_FILE names, or the digits in REELKV_KEY.",
            valueName: "file"),
        completion: .file())
    var keyFile: [String] = []

    func path() throws -> String { try folder.path() }

    func openToLook() throws -> Store { try unlocked(Store(opening: path(), access: .readOnly)) }

    func openToChange(durability: Store.Durability? = nil) throws -> Store {
        try unlocked(Store(opening: path(), durability: durability))
    }

    private func unlocked(_ store: Store) throws -> Store {
        for key in try GivenKey.all(files: keyFile) { try key.unlock(store) }
        return store
    }

    /// Opens for reading pages: a page found damaged is noted in the store, so that it counts as absent from then on. A store
    /// that cannot be written is read all the same.
    func openToRead() throws -> Store {
        do {
            return try openToChange()
        } catch let error as StoreError where error.code == .readOnly {
            return try openToLook()
        }
    }
}

struct TenantOption: ParsableArguments {
    @Option(help: "Whose caches: nothing is shared or matched between tenants.")
    var tenant = Store.defaultTenant
}

struct OutputOption: ParsableArguments {
    @Flag(help: "Write JSON: one line, or indented on a terminal.")
    var json = false

    /// Writes `value` as JSON, or else what `text` makes of it.
    func write<Value: Encodable>(_ value: Value, text: (Value) throws -> String) throws {
        if json {
            print(try JSONOutput.text(value, pretty: Terminal.standardOutput().isInteractive), terminator: "")
        } else {
            print(try text(value), terminator: "")
        }
    }
}

struct QuietOption: ParsableArguments {
    @Flag(name: .shortAndLong, help: "Show no progress.")
    var quiet = false

    func progress(_ label: String, total: Int, unit: ProgressLine.Unit) -> ProgressBar? {
        quiet ? nil : ProgressBar(label, totalCount: total, unit: unit)
    }
}
