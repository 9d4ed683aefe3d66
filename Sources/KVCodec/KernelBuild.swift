import CKVKernels

/// The builds of the inner loops, one per instruction set. All give the same bits; the widest that the processor runs is in use.
package enum KernelBuild: Int32, CaseIterable, Sendable {
    case portable = 0
    case avx2 = 1
    case avx512 = 2
    case avx512bf16 = 3

    /// Makes the whole process use this build; false when the processor cannot run it. For tests and measurements.
    package func use() -> Bool { kv_use_instructions(rawValue) != 0 }

    /// Goes back to the widest build there is.
    package static func useBest() {
        _ = allCases.last { $0.use() }
    }
}
