/// What the header says about one tensor, checked against the file.
public struct TensorInfo: Sendable, Hashable {
    /// The tensor's key in the header.
    public let name: String
    public let dataType: DataType
    /// Extents, outermost first. Empty for a scalar; an extent may be 0.
    public let shape: [Int]
    /// Where the elements lie, in bytes from the start of the data area (which follows the header).
    public let byteRange: Range<Int>

    /// Number of elements: the product of `shape`, 1 for a scalar.
    public var elementCount: Int {
        // The product was checked for overflow before this value was made.
        shape.reduce(1, *)
    }

    /// Bytes that the elements take.
    public var byteCount: Int { byteRange.count }
}

/// A tensor that a `SafetensorsWriter` is going to hold.
public struct TensorDeclaration: Sendable, Hashable {
    public var name: String
    public var dataType: DataType
    /// Extents, outermost first. Empty for a scalar.
    public var shape: [Int]

    public init(_ name: String, _ dataType: DataType, shape: [Int]) {
        self.name = name
        self.dataType = dataType
        self.shape = shape
    }
}

/// Why a shape has no size in bytes.
enum ShapeProblem: Error {
    case negativeExtent
    case overflow
    /// The elements of a type narrower than a byte do not fill whole bytes.
    case partialByte
}

/// Bytes that a tensor of `shape` takes.
func byteCount(of shape: [Int], _ dataType: DataType) throws(ShapeProblem) -> Int {
    var elementCount = 1
    for extent in shape {
        guard extent >= 0 else { throw .negativeExtent }
        let (product, overflow) = elementCount.multipliedReportingOverflow(by: extent)
        guard !overflow else { throw .overflow }
        elementCount = product
    }
    let (bitCount, overflow) = elementCount.multipliedReportingOverflow(by: dataType.bitCount)
    guard !overflow else { throw .overflow }
    guard bitCount.isMultiple(of: 8) else { throw .partialByte }
    return bitCount / 8
}
