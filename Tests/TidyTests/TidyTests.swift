// Keeps the maps true: what the README files list is what lies there, and nothing else lies at the top.

import Foundation
import Testing

@Suite struct TidyTests {
    /// The root of the checkout.
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// Every file that belongs to the project, as paths from the root.
    var files: [String] {
        var found: [String] = []
        let walk = FileManager.default.enumerator(atPath: root.path)
        while let path = walk?.nextObject() as? String {
            let first = path.split(separator: "/").first.map(String.init) ?? path
            if first.hasPrefix(".build") || first == ".git" || first == "out" || path.contains("__pycache__") {
                walk?.skipDescendants()
                continue
            }
            var isFolder: ObjCBool = false
            let there = unsafe FileManager.default.fileExists(
                atPath: root.appendingPathComponent(path).path, isDirectory: &isFolder)
            if there, !isFolder.boolValue { found.append(path) }
        }
        return found.sorted()
    }

    func text(_ path: String) throws -> String {
        try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
    }

    @Test func topLevelHoldsOnlyWhatBelongsThere() {
        let allowed: Set = ["Package.swift", "Sources", "Tests", "Traces", "Tools", "README.md", "LICENSE"]
        let top = Set(files.compactMap { $0.split(separator: "/").first.map(String.init) })
        #expect(top.filter { !$0.hasPrefix(".") && $0 != "Package.resolved" }.subtracting(allowed).isEmpty)
    }

    @Test func designNamesEveryTarget() throws {
        let design = try text("Sources/README.md")
        for target in try folders("Sources") { #expect(design.contains("`\(target)`"), "\(target) is not on the map") }
    }

    /// Of the engines' catalogue, C headers and articles the folders speak for themselves.
    @Test func designNamesEveryFolderOfATarget() throws {
        let design = try text("Sources/README.md")
        for path in files where path.hasPrefix("Sources/") && path.hasSuffix(".swift") {
            for folder in path.split(separator: "/").dropFirst(2).dropLast() {
                #expect(design.contains("`\(folder)`"), "\(path) lies in a folder that is not on the map")
            }
        }
    }

    @Test func testMapNamesEverySuiteFolder() throws {
        let map = try text("Tests/README.md")
        for suite in try folders("Tests") { #expect(map.contains("`\(suite)`"), "\(suite) is not on the map") }
    }

    @Test func toolMapNamesEveryTool() throws {
        let map = try text("Tools/README.md")
        let tools = Set(
            files.filter { $0.hasPrefix("Tools/") }.compactMap { $0.split(separator: "/").dropFirst().first })
        for tool in tools where tool != "README.md" { #expect(map.contains("`\(tool)`"), "\(tool) is not on the map") }
    }

    @Test func traceMapNamesEveryTraceAndScenario() throws {
        let map = try text("Traces/README.md")
        for path in files where path.hasPrefix("Traces/") && !path.hasSuffix("README.md") {
            let name = path.split(separator: "/").dropFirst().joined(separator: "/")
            #expect(map.contains("`\(name)`"), "\(name) is not on the map")
        }
    }

    @Test func everySwiftFileOpensWithItsPromise() throws {
        for path in files where path.hasSuffix(".swift") && path != "Package.swift" {
            let first = try text(path).prefix(3)
            #expect(first == "// ", "\(path) does not open with a comment that says what it promises")
        }
    }

    @Test func alertsAndDashboardNameOnlyMetricsThatAStoreHas() throws {
        let code =
            try text("Sources/KVStore/Decisions/StoreTotals.swift")
            + text("Sources/KVStore/Runtime/StoreMetrics.swift")
        let transports = try text("Sources/KVTransport/Server/ServerLimits.swift")
        for path in ["Tools/deploy/alerts.yml", "Tools/deploy/grafana-dashboard.json"] {
            let names = try text(path).matches(of: /holdfast_store_(\w+)/)
            #expect(!names.isEmpty)
            for name in names {
                let ofTransports = name.output.1.wholeMatch(of: /transport_(\w+)/)?.output.1
                let isThere =
                    ofTransports.map { transports.contains("(\"\($0)\",") } ?? code.contains("(\"\(name.output.1)\",")
                #expect(isThere, "\(path) names \(name.output.0)")
            }
        }
    }

    @Test(arguments: ["Tools/deploy/grafana-agent.json", "Tools/deploy/alerts.yml"])
    func theAgentsDashboardAndAlertsNameOnlyMetricsThatAnAgentHas(path: String) throws {
        let folder = "Sources/KVAgent/Figures/"
        let code =
            try text("Sources/KVAgent/Protocol/EngineCounters.swift") + text(folder + "AgentMetrics.swift")
            + text(folder + "AgentMetrics+Meanings.swift")
        let families = try text(folder + "AgentMetrics+Tiers.swift")
        let names = try text(path).matches(of: /holdfast_(?<part>agent_)?(?<name>\w+?)(_bucket)?\b/)
            .filter { !$0.output.0.hasPrefix("holdfast_store_") }
        #expect(!names.isEmpty)
        for name in names {
            let word = String(name.output.name)
            // What the decisions counted stands in the list of meanings without the words around it.
            let decided = word.wholeMatch(of: /decided_(\w+)_total/).map { String($0.output.1) }
            let isThere =
                name.output.part == nil
                ? families.contains("(\"\(word)\",") : code.contains("\"\(decided ?? word)\"")
            #expect(isThere, "\(path): \(name.output.0) is no metric")
        }
    }

    @Test func nothingIsLeftUnfinished() throws {
        // Spelled in two parts, so that this file does not hold what it looks for.
        let words = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "not yet " + "implemented"]
        for path in files where ["swift", "md", "yaml", "py", "sh"].contains((path as NSString).pathExtension) {
            let content = try text(path)
            for word in words { #expect(!content.contains(word), "\(path) holds \(word)") }
        }
    }

    /// Every name of a type, a file or a folder in the maps and articles stands in the code, too.
    @Test func mapsNameOnlyWhatIsThere() throws {
        let sources = files.filter { ["swift", "py", "c", "h"].contains(($0 as NSString).pathExtension) }
        var words: Set<Substring> = []
        for path in sources {
            let content = try text(path)
            for word in content.utf8.split(whereSeparator: { !Self.isOfName($0) }) { words.insert(Substring(word)) }
        }
        let names = Set(sources.map { ($0 as NSString).lastPathComponent })
        let folders = Set(sources.flatMap { $0.split(separator: "/").dropLast() })
        var count = 0
        for path in files where path.hasSuffix(".md") {
            for match in try text(path).matches(of: /`(?<type>[A-Z][a-z0-9]+[A-Z]\w*)(?<topic>\+\w+)?`/) {
                count += 1
                let isFile = names.contains("\(match.output.type)\(match.output.topic ?? "").swift")
                let isName = match.output.topic == nil
                let isType = isName && words.contains(match.output.type)
                let isFolder = isName && folders.contains(match.output.type)
                #expect(isFile || isType || isFolder, "\(path): \(match.output.0)")
            }
        }
        #expect(count > 100)
    }

    private static func isOfName(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    @Test func linksInMapsLeadSomewhere() throws {
        for path in files where path.hasSuffix(".md") {
            let folder = root.appendingPathComponent(path).deletingLastPathComponent()
            for match in try text(path).matches(of: /\]\((?<target>[^)#:\s]+)(?:#[^)]*)?\)/) {
                let target = folder.appendingPathComponent(String(match.output.target)).path
                #expect(FileManager.default.fileExists(atPath: target), "\(path) links to \(match.output.target)")
            }
        }
    }

    /// What README tells users of an engine to write is what is tested: the command of the page that the engines' tests read.
    @Test func theEnginesCommandIsThatOfTheirPage() throws {
        func folded(_ text: some StringProtocol) -> String {
            text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        }
        let command = try #require(try text("README.md").firstMatch(of: /vllm serve MODEL (?s:.)*?\}\}'/)).output
        #expect(folded(try text("Tools/python/README.md")).contains(folded(command)))
    }

    /// The names of the folders directly in `parent`.
    private func folders(_ parent: String) throws -> [String] {
        Set(
            files.filter { $0.hasPrefix("\(parent)/") }.map { $0.split(separator: "/") }.filter { $0.count > 2 }
                .map { String($0[1]) }
        ).sorted()
    }
}
