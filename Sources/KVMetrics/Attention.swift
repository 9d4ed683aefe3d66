public import KVCodec

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// One layer's cache and the queries of the tokens that come after it.
public struct AttentionSample: Sendable {
    /// `[queryHeads, queries, keyDim]`, after the rotary embedding; `queryHeads` is a multiple of the key's heads.
    public var queries: TensorView
    /// `[keyValueHeads, tokens, keyDim]`
    public var key: TensorView
    /// `[keyValueHeads, tokens, valueDim]`
    public var value: TensorView

    /// - Throws: `CodecError.Code.invalidArgument` when the shapes do not go together.
    public init(queries: TensorView, key: TensorView, value: TensorView) throws(CodecError) {
        guard key.heads > 0, key.tokens > 0, queries.dim == key.dim, queries.heads % key.heads == 0, value.heads == key.heads,
            value.tokens == key.tokens
        else {
            throw CodecError(
                .invalidArgument,
                "queries [\(queries.heads), \(queries.tokens), \(queries.dim)] do not go with keys "
                    + "[\(key.heads), \(key.tokens), \(key.dim)] and values [\(value.heads), \(value.tokens), \(value.dim)]")
        }
        self.queries = queries
        self.key = key
        self.value = value
    }

    /// Attention output over the whole cache, `[queryHeads, queries, valueDim]`: softmax(q k / sqrt(keyDim)) v. Every query
    /// comes after every token, so nothing is masked. Query head `h` reads key/value head `h / (queryHeads / keyValueHeads)`.
    public func output() -> [Float] {
        let keys = key.floats()
        let values = value.floats()
        let queryRows = queries.floats()
        let sharing = queries.heads / key.heads
        var result: [Float] = []
        result.reserveCapacity(queries.heads * queries.tokens * value.dim)
        for head in 0..<queries.heads {
            let shared = head / sharing
            let keyRows = keys[shared * key.tokens * key.dim..<(shared + 1) * key.tokens * key.dim]
            let valueRows = values[shared * key.tokens * value.dim..<(shared + 1) * key.tokens * value.dim]
            for query in 0..<queries.tokens {
                let start = (head * queries.tokens + query) * queries.dim
                result += Self.attend(
                    Array(queryRows[start..<start + queries.dim]), Array(keyRows), Array(valueRows), dim: value.dim)
            }
        }
        return result
    }

    /// One query over keys `[tokens][query.count]` and values `[tokens][dim]`.
    private static func attend(_ query: [Float], _ keys: [Float], _ values: [Float], dim: Int) -> [Float] {
        let tokens = keys.count / query.count
        let scale = 1 / Float(query.count).squareRoot()
        var weights = [Float](repeating: 0, count: tokens)
        for token in 0..<tokens {
            var sum: Float = 0
            for channel in query.indices { sum += query[channel] * keys[token * query.count + channel] }
            weights[token] = sum * scale
        }
        let largest = weights.max() ?? 0
        var total = 0.0
        for token in 0..<tokens {
            weights[token] = exp(weights[token] - largest)
            total += Double(weights[token])
        }
        var output = [Float](repeating: 0, count: dim)
        for token in 0..<tokens {
            let weight = weights[token] / Float(total)
            for channel in 0..<dim { output[channel] += weight * values[token * dim + channel] }
        }
        return output
    }

    /// Relative L2 distance of the attention output over `key` and `value` from the output over this sample's own.
    public func error(key approximateKey: TensorView, value approximateValue: TensorView) throws(CodecError) -> Double {
        let approximate = try AttentionSample(queries: queries, key: approximateKey, value: approximateValue)
        return relativeDistance(of: approximate.output(), to: output())
    }
}
