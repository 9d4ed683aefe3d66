extension SequenceInfo {
    /// The tokens of some of a video's frames, as indices in the sequence: from the first frame's first token to the last one's last.
    ///
    /// - Parameter range: indices of frames.
    /// - Throws: `StoreError.invalidArgument` for frames that the video does not have.
    public func tokens(ofFrames range: Range<Int>) throws -> Range<Int> {
        guard range.lowerBound >= 0, range.upperBound <= frames.count else {
            throw StoreError(.invalidArgument, "frames \(range) are not within the \(frames.count) frames of \(name)")
        }
        guard let first = frames[range].first, let last = frames[range].last else { return 0..<0 }
        return first.firstToken..<last.firstToken + last.tokenCount
    }

    /// The frames whose time in the video lies within `range`, in seconds, as indices of frames.
    public func frames(inSeconds range: Range<Double>) -> Range<Int> {
        let inside = frames.indices.filter { range.contains(frames[$0].seconds) }
        guard let first = inside.first, let last = inside.last else { return 0..<0 }
        return first..<last + 1
    }
}
