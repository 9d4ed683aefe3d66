import KVCodec

extension EncodedPage: PageBytes {
    var count: Int { bytes.count }

    func copy(to destination: UnsafeMutableRawBufferPointer) { bytes.copy(to: destination) }
}
