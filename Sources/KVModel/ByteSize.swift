// Sizes as people write them.

/// Bytes with a unit: "100GiB", "2 MiB", "1.5 TB", "4096".
public enum ByteSize {
    /// The units and their bytes: powers of ten, and powers of two with an i.
    public static let units: [(word: String, bytes: Double)] = [
        ("B", 1), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("PB", 1e15),
        ("KiB", 1024), ("MiB", 1_048_576), ("GiB", 1_073_741_824), ("TiB", 1_099_511_627_776),
        ("PiB", 1_125_899_906_842_624),
    ]

    /// Reads a size.
    ///
    /// - Parameters:
    ///   - name: What it is the size of, for the error.
    ///   - place: Where it was written, for the error.
    public static func read(_ text: String, name: String, at place: String) throws(OperatorError) -> Int {
        let digits = text.prefix { $0.isNumber || $0 == "." }
        let word = text.dropFirst(digits.count).drop { $0 == " " }
        let unit = word.isEmpty ? 1 : units.first { $0.word == word }?.bytes
        guard let number = Double(digits), let unit, number * unit < 9e18 else {
            throw OperatorError(
                "`\(name)` is `\(text)`, not a size", at: place, remedy: "write bytes with a unit, like 512 MiB or 2 TB"
            )
        }
        return Int(number * unit)
    }

    /// `1.5 GiB`, `64 KiB`, `12 B`.
    public static func text(_ bytes: Int) -> String {
        var value = Double(bytes)
        var index = 0
        let names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
        while value >= 1024, index + 1 < names.count {
            value /= 1024
            index += 1
        }
        let tenths = (value * 10).rounded() / 10
        return (tenths == tenths.rounded() ? "\(Int(tenths))" : "\(tenths)") + " \(names[index])"
    }
}
