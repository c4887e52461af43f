// The colours, recomputed from their constants: what can be read, and who can tell them apart.

import Foundation
import KVReport
import Testing

/// A colour as linear light, red, green and blue from 0 to 1.
private typealias Light = [Double]

private func light(_ hex: String) -> Light {
    let digits = Array(hex.dropFirst())
    return stride(from: 0, to: 6, by: 2).map { index in
        let value = Double(Int(String(digits[index...index + 1]), radix: 16)!) / 255
        return value <= 0.04045 ? value / 12.92 : pow((value + 0.055) / 1.055, 2.4)
    }
}

/// Contrast of two colours, 1 to 21 (WCAG 2.2).
private func contrast(_ a: String, _ b: String) -> Double {
    func luminance(_ light: Light) -> Double { 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2] }
    let (x, y) = (luminance(light(a)), luminance(light(b)))
    return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

/// Difference of two colours in CIELAB (CIE76), white D65.
private func difference(_ a: Light, _ b: Light) -> Double {
    func lab(_ c: Light) -> [Double] {
        let xyz = [
            (0.4124 * c[0] + 0.3576 * c[1] + 0.1805 * c[2]) / 0.95047, 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2],
            (0.0193 * c[0] + 0.1192 * c[1] + 0.9505 * c[2]) / 1.08883,
        ].map { $0 > 0.008856 ? cbrt($0) : 7.787 * $0 + 16.0 / 116 }
        return [116 * xyz[1] - 16, 500 * (xyz[0] - xyz[1]), 200 * (xyz[1] - xyz[2])]
    }
    return zip(lab(a), lab(b)).map { ($0 - $1) * ($0 - $1) }.reduce(0, +).squareRoot()
}

/// Full colour-vision deficiency in linear light (Machado, Oliveira, Fernandes 2009, severity 1.0).
private let visions: [(name: String, matrix: [[Double]])] = [
    ("typical", [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    (
        "protanopia",
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    (
        "deuteranopia",
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    (
        "tritanopia",
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
]

private func seen(_ light: Light, by matrix: [[Double]]) -> Light {
    matrix.map { row in min(max(zip(row, light).map(*).reduce(0, +), 0), 1) }
}

@Suite struct PaletteTests {
    private let themes: [(name: String, shade: KeyPath<Colour, String>)] = [("light", \.light), ("dark", \.dark)]

    @Test func textCanBeReadOnEveryFill() {
        for (theme, shade) in themes {
            for fill in Fill.allCases {
                let paint = Palette.paint(fill)
                #expect(contrast(paint.fill[keyPath: shade], paint.text[keyPath: shade]) >= 4.5, "\(fill) in \(theme)")
            }
            for (background, text) in [
                (Palette.paper, Palette.ink), (Palette.paper, Palette.soft), (Palette.card, Palette.soft),
                (Palette.note, Palette.ink),
                (Palette.paper, Palette.runs[0]), (Palette.card, Palette.runs[0]),
            ] { #expect(contrast(background[keyPath: shade], text[keyPath: shade]) >= 4.5, "text in \(theme)") }
            for badge in Palette.runs + [Palette.reference] {
                #expect(contrast(badge[keyPath: shade], Palette.card[keyPath: shade]) >= 4.5, "badge in \(theme)")
            }
        }
    }

    @Test func linesCanBeSeenOnThePage() {
        for (theme, shade) in themes {
            for line in Palette.runs + [Palette.reference, Palette.baseline, Palette.ceiling] {
                #expect(contrast(line[keyPath: shade], Palette.paper[keyPath: shade]) >= 3, "\(line) in \(theme)")
            }
        }
    }

    /// Fills that stand in one picture, and how far apart they must be: pairs that also differ by pattern may be closer.
    private static let pictures: [[Fill]] = [
        [.hbm, .dram, .nvme, .flash, .again, .context], [.again, .refused, .choice, .waiting, .context],
        [.decode, .useful, .again, .waiting, .context], [.choice, .dram, .waiting],
        [.dram, .again, .waiting, .context],
        [.context, .choice],
    ]

    @Test func fillsOfOnePictureDifferForEveryReader() {
        // Refused is plain and waiting has dots; computed again is hatched and waiting has dots.
        let patterned: [Set<Fill>: Double] = [[.refused, .waiting]: 11, [.again, .waiting]: 13]
        for (theme, shade) in themes {
            for (vision, matrix) in visions {
                for fills in PaletteTests.pictures {
                    for (index, a) in fills.enumerated() {
                        for b in fills.dropFirst(index + 1) {
                            let apart = difference(
                                seen(light(Palette.paint(a).fill[keyPath: shade]), by: matrix),
                                seen(light(Palette.paint(b).fill[keyPath: shade]), by: matrix))
                            #expect(apart >= patterned[[a, b]] ?? 18, "\(a) and \(b), \(theme), \(vision): \(apart)")
                        }
                    }
                }
            }
        }
    }
}
