/// Sum of squared differences over sum of squares (NMSE), over the finite values of `original`. 0 when nothing differs.
public func normalizedSquaredError(of approximate: [Float], against original: [Float]) -> Double {
    precondition(approximate.count == original.count, "compared arrays have \(approximate.count) and \(original.count) values")
    var error = 0.0
    var energy = 0.0
    for (x, y) in zip(original, approximate) where x.isFinite {
        let difference = Double(x) - Double(y)
        error += difference * difference
        energy += Double(x) * Double(x)
    }
    return error == 0 ? 0 : error / energy
}

/// The length of the difference over the length of the original: the square root of NMSE.
public func relativeDistance(of approximate: [Float], to original: [Float]) -> Double {
    normalizedSquaredError(of: approximate, against: original).squareRoot()
}
