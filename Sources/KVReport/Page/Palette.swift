// The colours, in one place: five families, one meaning each, in both themes. A test recomputes that text can be read
// on every fill, lines on the page, and that fills of one chart differ for those who see colours differently.

/// A colour in the light and in the dark theme, as `#rrggbb`.
public struct Colour: Sendable, Equatable {
    /// On light paper.
    public let light: String
    /// On dark paper.
    public let dark: String

    init(_ light: String, _ dark: String) {
        self.light = light
        self.dark = dark
    }
}

/// The colours of the page.
public enum Palette {
    /// The page.
    public static let paper = Colour("#fbfaf7", "#14171b")
    /// Boxes on it.
    public static let card = Colour("#ffffff", "#1b1f25")
    /// Text.
    public static let ink = Colour("#1a1e23", "#ebe9e4")
    /// Text that stands back.
    public static let soft = Colour("#555c65", "#a7aeb8")
    /// Rules between things.
    public static let rule = Colour("#dcd9d2", "#353b44")
    /// Grid lines inside charts.
    public static let grid = Colour("#e9e7e1", "#2a3038")
    /// The cautions' box and its edge.
    public static let note = Colour("#fff5dd", "#2c2613")
    /// The edge of the cautions' box.
    public static let noteEdge = Colour("#d9a92f", "#8f7330")

    /// The lines of records 1 to 4.
    public static let runs = [
        Colour("#0b5ea8", "#6db5f3"), Colour("#a01d78", "#ef8fd0"), Colour("#5c6900", "#b7c14f"),
        Colour("#7d4a1d", "#d8a679"),
    ]
    /// The reference.
    public static let reference = Colour("#1a1e23", "#ebe9e4")
    /// Other baselines.
    public static let baseline = Colour("#7d8389", "#838b95")
    /// Ceilings.
    public static let ceiling = Colour("#55606b", "#b4bcc6")

    /// A fill and the text that stands on it.
    public struct Paint: Sendable {
        /// The area.
        public let fill: Colour
        /// Text on it.
        public let text: Colour
    }

    /// What each meaning looks like.
    public static func paint(_ fill: Fill) -> Paint {
        switch fill {
        case .hbm: Paint(fill: Colour("#0a3766", "#d3e8fb"), text: Colour("#ffffff", "#0c1a28"))
        case .dram: Paint(fill: Colour("#2272b8", "#86c1ef"), text: Colour("#ffffff", "#0c1a28"))
        case .nvme: Paint(fill: Colour("#67a9dc", "#3f88c0"), text: Colour("#06203a", "#06131f"))
        case .flash: Paint(fill: Colour("#b3d4ee", "#245884"), text: Colour("#06203a", "#ffffff"))
        case .again: Paint(fill: Colour("#c44d16", "#e9824d"), text: Colour("#ffffff", "#241004"))
        case .refused: Paint(fill: Colour("#dd8d68", "#8a4a2a"), text: Colour("#260c00", "#ffffff"))
        case .waiting: Paint(fill: Colour("#e8ad2c", "#e2b44b"), text: Colour("#2e2000", "#241a00"))
        case .decode: Paint(fill: Colour("#0d5750", "#7fd6c6"), text: Colour("#ffffff", "#04211d"))
        case .useful: Paint(fill: Colour("#5bb3a2", "#27796c"), text: Colour("#03231e", "#ffffff"))
        case .choice: Paint(fill: Colour("#8a93a0", "#66707d"), text: Colour("#0d1116", "#ffffff"))
        case .context: Paint(fill: Colour("#e4e2dc", "#353c46"), text: Colour("#3f464e", "#c3c9d1"))
        case .ghost: Paint(fill: paper, text: ink)
        }
    }

    /// The darker stripes of the hatch over work done twice.
    public static let hatch = Colour("#a83d0c", "#d26f3b")

    /// The colours as CSS variables by name.
    static var variables: [(name: String, colour: Colour)] {
        var list: [(String, Colour)] = [
            ("paper", paper), ("card", card), ("ink", ink), ("soft", soft), ("rule", rule), ("grid", grid),
            ("note", note),
            ("note-edge", noteEdge), ("reference", reference), ("baseline", baseline), ("ceiling", ceiling),
            ("hatch", hatch),
        ]
        for (index, colour) in runs.enumerated() { list.append(("run\(index + 1)", colour)) }
        for fill in Fill.allCases {
            list.append((fill.rawValue, paint(fill).fill))
            list.append(("on-\(fill.rawValue)", paint(fill).text))
        }
        return list
    }

    /// The variables as a style sheet: light-dark() where the browser has it, else the page is light.
    static var styleSheet: String {
        let both = variables.map { "--\($0.name):light-dark(\($0.colour.light),\($0.colour.dark))" }.joined(
            separator: ";")
        let light = variables.map { "--\($0.name):\($0.colour.light)" }.joined(separator: ";")
        return """
            :root{color-scheme:light dark;\(both)}
            :root:has(#theme-light:checked){color-scheme:light}
            :root:has(#theme-dark:checked){color-scheme:dark}
            @supports not (color:light-dark(#000,#fff)){:root{color-scheme:light;\(light)}.themes{display:none}}
            """
    }
}
