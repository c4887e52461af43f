// `replay --lockstep`: one request at a time, so that what is decided depends on nothing but the trace. Its record has
// the ordinary shape, and `report` shows it beside others.

import ArgumentParser
import KVModel
import KVReport
import KVSimulation

struct LockStepOptions: ParsableArguments {
    @Flag(
        name: .customLong("lockstep"),
        help: "One request at a time, everything at rest before the next: exact hit tokens by tier, no queueing.")
    var isAsked = false

    @Option(help: ArgumentHelp("Nodes; by default as many as the scenario has.", valueName: "count"))
    var agents: Int?

    @Option(
        help: ArgumentHelp(
            "How conversations find engines: \(LockStepRouter.allCases.map(\.rawValue).joined(separator: ", ")).",
            valueName: "rule"))
    var route: String = LockStepRouter.sticky.rawValue

    func validate() throws {
        if let agents, !(1...1024).contains(agents) { throw ValidationError("--agents \(agents): give 1 to 1024.") }
    }

    /// The rule by which conversations find engines.
    func router() throws(OperatorError) -> LockStepRouter {
        guard let router = LockStepRouter(rawValue: route) else {
            let known = LockStepRouter.allCases.map(\.rawValue).joined(separator: ", ")
            throw OperatorError("'\(route)' is not a rule", at: "--route", remedy: "give one of \(known)")
        }
        return router
    }

    /// The words of a command that asks for the same.
    var words: [String] {
        ["--lockstep", "--route", route] + (agents.map { ["--agents", "\($0)"] } ?? [])
    }

    /// Replays the trace over modelled nodes.
    func run(_ input: TraceInput, _ modelled: ModelledOptions, json: Bool, terminal: TerminalOptions) throws {
        let router = try router()
        let scenario = try modelled.scenario.read()
        try modelled.checkOutput()
        let replay = try ModelledReplay(
            trace: try input.read(), scenario: scenario, catalogue: try modelled.scenario.readCatalogue())
        let nodes = replay.stillNodes(agents ?? scenario.nodes)
        let bar = ProgressBar("replaying", forced: input.progress)
        let total = Double(replay.requestCount)
        let result = try replay.lockStep(over: nodes, router: router) { request in
            bar.update(Double(request) / total, detail: "\(request) requests")
        }
        bar.finish()
        let overrides = Dictionary(try modelled.scenario.readOverrides().map { ($0.key, $0.value) }) { _, last in last }
        let record = replay.record(
            of: result, version: Holdfast.configuration.version, command: modelled.command(input, words),
            overrides: overrides, live: nil)
        try modelled.finish(record, json: json, terminal: terminal)
    }
}
