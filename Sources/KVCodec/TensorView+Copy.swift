extension TensorView {
    /// Copies the tensor bit by bit to one of the same shape and element type, whatever the strides of the two.
    ///
    /// - Throws: `CodecError.Code.invalidArgument` for another shape or element type.
    public func copy(to destination: MutableTensorView) throws(CodecError) {
        guard destination.elementType == elementType, destination.heads == heads, destination.tokens == tokens,
            destination.dim == dim
        else {
            throw .invalid(
                "cannot copy [\(heads), \(tokens), \(dim)] of \(elementType.name) to "
                    + "[\(destination.heads), \(destination.tokens), \(destination.dim)] of \(destination.elementType.name)")
        }
        // Without an element, the other sizes can be anything.
        guard layout.elementCount > 0 else { return }
        let size = elementType.byteCount
        let rowsAreWhole = layout.channelStride == 1 && destination.layout.channelStride == 1
        let headsAreWhole = rowsAreWhole && layout.tokenStride == dim && destination.layout.tokenStride == dim
        for head in 0..<heads {
            let source = base + head * layout.headStride * size
            let target = destination.base + head * destination.layout.headStride * size
            if headsAreWhole {
                target.copyMemory(from: source, byteCount: tokens * dim * size)
                continue
            }
            for token in 0..<tokens {
                let sourceRow = source + token * layout.tokenStride * size
                let targetRow = target + token * destination.layout.tokenStride * size
                if rowsAreWhole {
                    targetRow.copyMemory(from: sourceRow, byteCount: dim * size)
                    continue
                }
                for channel in 0..<dim {
                    (targetRow + channel * destination.layout.channelStride * size)
                        .copyMemory(from: sourceRow + channel * layout.channelStride * size, byteCount: size)
                }
            }
        }
    }
}
