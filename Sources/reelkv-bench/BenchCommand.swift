import ArgumentParser

@main
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reelkv-bench",
        abstract: "Measures ReelKV: look-ups, writes, restores, eviction, and what each profile costs and loses.",
        discussion: "Run it through tools/bench, which builds it for release.",
        subcommands: [
            ProfileBenchmark.self, PrefixBenchmark.self, WriteBenchmark.self, RestoreBenchmark.self, CodecBenchmark.self,
            ReplayBenchmark.self, SoakBenchmark.self, SoakWorker.self,
        ])
}
