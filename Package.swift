// swift-tools-version: 6.2
import PackageDescription

let swiftSettings: [SwiftSetting] = [
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
]

// Floating point must give the same bits on every processor, so a compiler may not fuse a multiply and an add on its own.
let kernelSettings: [CSetting] = [
    .define("_GNU_SOURCE")
]

let package = Package(
    name: "ReelKV",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "ReelKV", targets: ["ReelKV"]),
        .library(name: "KVCacheBridge", targets: ["KVCacheBridge"]),
        // tools/library builds it as libreelkv.so: that name belongs to the program below.
        .library(name: "ReelKVC", type: .dynamic, targets: ["ReelKVC"]),
        .executable(name: "reelkv", targets: ["reelkv"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.6.0")
    ],
    targets: [
        .systemLibrary(name: "CLMDB", pkgConfig: "lmdb", providers: [.apt(["liblmdb-dev"]), .brew(["lmdb"])]),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"]), .brew(["zstd"])]),
        .systemLibrary(name: "CXXHash", pkgConfig: "libxxhash", providers: [.apt(["libxxhash-dev"]), .brew(["xxhash"])]),
        .systemLibrary(name: "CSodium", pkgConfig: "libsodium", providers: [.apt(["libsodium-dev"]), .brew(["libsodium"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),

        // Locks that ThreadSanitizer knows, in its builds.
        .target(name: "Locking", swiftSettings: swiftSettings),
        .target(name: "CKVKernels", cSettings: kernelSettings),
        .target(name: "LMDB", dependencies: ["CLMDB", "CXXHash", "Locking"], swiftSettings: swiftSettings),
        .target(name: "KVCodec", dependencies: ["CKVKernels", "CZstd", "CXXHash", "Locking"], swiftSettings: swiftSettings),
        .target(name: "KVMetrics", dependencies: ["KVCodec"], swiftSettings: swiftSettings),
        .target(name: "Safetensors", swiftSettings: swiftSettings),
        .target(name: "Rendering", dependencies: ["CZlib", "Locking"], swiftSettings: swiftSettings),
        .target(name: "ReelKV", dependencies: ["LMDB", "KVCodec", "CSodium", "Locking"], swiftSettings: swiftSettings),
        .target(name: "KVCacheBridge", dependencies: ["ReelKV", "KVCodec", "Locking"], swiftSettings: swiftSettings),
        .target(name: "ModelSpecFiles", dependencies: ["ReelKV", "KVCodec"], swiftSettings: swiftSettings),
        .target(name: "Reports", dependencies: ["ReelKV", "KVCodec"], swiftSettings: swiftSettings),
        .target(name: "TraceReplay", dependencies: ["ReelKV", "KVCodec"], swiftSettings: swiftSettings),
        .target(name: "CReelKV"),
        .target(
            name: "ReelKVC", dependencies: ["CReelKV", "LMDB", "ReelKV", "KVCodec", "Locking", "ModelSpecFiles", "Reports"],
            swiftSettings: swiftSettings),
        .target(
            name: "ReelKVCommands",
            dependencies: [
                "ReelKV", "Locking", "Safetensors", "KVMetrics", "Rendering", "ModelSpecFiles", "Reports",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Sources/reelkv-cli",
            swiftSettings: swiftSettings),
        .executableTarget(
            name: "reelkv", dependencies: ["ReelKVCommands"], path: "Sources/reelkv-main", swiftSettings: swiftSettings),
        .executableTarget(
            name: "reelkv-bench",
            dependencies: [
                "ReelKV", "Locking", "Safetensors", "KVMetrics", "Rendering", "Reports", "TraceReplay",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: swiftSettings),

        // A plain model of a store, for the tests and for reelkv-crash.
        .target(name: "StoreModel", dependencies: ["ReelKV", "KVCodec"], swiftSettings: swiftSettings),
        .executableTarget(
            name: "reelkv-crash",
            dependencies: [
                "ReelKV", "KVCodec", "LMDB", "Reports", "StoreModel",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: swiftSettings),
        // Only declares libFuzzer, which tools/fuzz links.
        .target(name: "CFuzzer"),
        .target(
            name: "FuzzTargets",
            dependencies: [
                "ReelKVCommands", "ReelKVC", "CReelKV", "ReelKV", "KVCodec", "Safetensors", "ModelSpecFiles",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: swiftSettings),
        .executableTarget(name: "reelkv-fuzz", dependencies: ["FuzzTargets", "CFuzzer"], swiftSettings: swiftSettings),

        .testTarget(name: "LMDBTests", dependencies: ["LMDB", "Locking"], swiftSettings: swiftSettings),
        .testTarget(
            name: "KVCodecTests", dependencies: ["CKVKernels", "FuzzTargets", "KVCodec", "KVMetrics", "Safetensors"],
            swiftSettings: swiftSettings),
        .testTarget(name: "SafetensorsTests", dependencies: ["Safetensors"], swiftSettings: swiftSettings),
        .testTarget(name: "RenderingTests", dependencies: ["Rendering", "CZlib", "Locking"], swiftSettings: swiftSettings),
        .testTarget(name: "ReportsTests", dependencies: ["Reports"], swiftSettings: swiftSettings),
        .testTarget(
            name: "ReelKVTests",
            dependencies: [
                "ReelKV", "KVCacheBridge", "LMDB", "Locking", "KVMetrics", "Safetensors", "StoreModel", "TraceReplay",
            ],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "ModelSpecFilesTests", dependencies: ["ModelSpecFiles", "ReelKV", "KVCodec"], swiftSettings: swiftSettings),
        .testTarget(
            name: "ReelKVCTests", dependencies: ["ReelKVC", "CReelKV", "ReelKV", "KVCodec"], swiftSettings: swiftSettings),
        .testTarget(
            name: "CommandTests", dependencies: ["reelkv", "Safetensors"], exclude: ["Scripts"],
            swiftSettings: swiftSettings),
        .testTarget(
            name: "FuzzTests", dependencies: ["reelkv-fuzz", "FuzzTargets"], exclude: ["Corpora"], swiftSettings: swiftSettings),
    ],
    swiftLanguageModes: [.v6]
)
