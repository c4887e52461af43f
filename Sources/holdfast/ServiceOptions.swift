// What the verbs that run until they are told to end have alike: settings shown, options over a file's settings, and a run that
// ends on SIGTERM or SIGINT, or with the process that started it.

import ArgumentParser
import KVModel
import KVSettings
import Logging
import ServiceLifecycle

/// Options of every verb that is a service, beside its settings and its log.
struct ServiceOptions: ParsableArguments {
    /// The process that started this one and without which it is of no use.
    @Option(name: .long, help: .hidden)
    var endsWith: Int32?

    @Flag(name: .long, help: "Writes all settings with what they mean and their defaults, and ends.")
    var printConfig = false

    /// From now on this process ends with the one that started it, if that said so.
    func endWithStarter() {
        if let endsWith { endThisProcess(with: endsWith) }
    }

    /// Runs a service until the process is asked to end.
    func run(_ service: some Service, logger: Logger) async throws {
        let group = ServiceGroup(
            configuration: .init(
                services: [service], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
        try await group.run()
    }
}

extension NamedSettings {
    /// Takes the options that were given, each as the value of its setting.
    mutating func set(_ options: [(name: String, option: String, value: String?)]) throws(OperatorError) {
        for option in options {
            if let value = option.value { try set(option.name, [value], at: option.option) }
        }
    }
}
