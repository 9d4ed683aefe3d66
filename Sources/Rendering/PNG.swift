import CZlib

/// An image as a PNG file (W3C, Portable Network Graphics, third edition): 8 bits each of red, green, blue, no transparency.
public enum PNG {
    /// - Parameters:
    ///   - pixels: rows from the top, each from the left; `width * height` of them.
    ///   - width: 1 or more.
    public static func encode(_ pixels: [RGB], width: Int, height: Int) -> [UInt8] {
        precondition(width > 0 && height > 0 && pixels.count == width * height, "the pixels do not fill the image")
        precondition(width <= Int(Int32.max) && height <= Int(Int32.max), "PNG has no larger images")
        var result: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]
        // Depth 8, colour type 2 (RGB), and the only compression, filter and (here) interlace method.
        append("IHDR", bigEndian(UInt32(width)) + bigEndian(UInt32(height)) + [8, 2, 0, 0, 0], to: &result)
        append("IDAT", compressed(filtered(pixels, width: width, height: height)), to: &result)
        append("IEND", [], to: &result)
        return result
    }

    /// Rows with the number of their filter in front: none for the first, "up" for the others, since rows of blocks repeat.
    private static func filtered(_ pixels: [RGB], width: Int, height: Int) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity((width * 3 + 1) * height)
        for row in 0..<height {
            result.append(row == 0 ? 0 : 2)
            for column in 0..<width {
                let pixel = pixels[row * width + column]
                let above = row == 0 ? RGB(0, 0, 0) : pixels[(row - 1) * width + column]
                result.append(pixel.red &- above.red)
                result.append(pixel.green &- above.green)
                result.append(pixel.blue &- above.blue)
            }
        }
        return result
    }

    private static func compressed(_ bytes: [UInt8]) -> [UInt8] {
        var count = compressBound(uLong(bytes.count))
        var result = [UInt8](repeating: 0, count: Int(count))
        let status = compress2(&result, &count, bytes, uLong(bytes.count), Z_BEST_COMPRESSION)
        precondition(status == Z_OK, "zlib refuses a buffer of its own bound")
        return Array(result[..<Int(count)])
    }

    private static func append(_ type: String, _ content: [UInt8], to file: inout [UInt8]) {
        let body = Array(type.utf8) + content
        file += bigEndian(UInt32(content.count)) + body
        file += bigEndian(UInt32(crc32(0, body, uInt(body.count))))
    }

    private static func bigEndian(_ value: UInt32) -> [UInt8] {
        withUnsafeBytes(of: value.bigEndian) { Array($0) }
    }
}
