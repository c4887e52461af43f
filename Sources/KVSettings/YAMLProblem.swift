// What is wrong with a YAML file, in one line that quotes none of its lines: some hold keys, and errors end up in logs.

import Foundation
import KVModel
import Yams

extension OperatorError {
    /// What Yams said of a file: file, line and column, and the problem. Of the file's text at most a name that stands there
    /// twice is repeated.
    public init(yaml error: any Error, at file: String) {
        guard let error = error as? YamlError else {
            self.init("is not YAML", at: file)
            return
        }
        switch error {
        case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _),
            .composer(let context, let problem, let mark, _):
            let begin = context.map { $0.mark.line == mark.line ? "" : " (in what begins in line \($0.mark.line))" }
            self.init("is not YAML: \(problem)\(begin ?? "")", at: "\(file):\(mark)")
        case .duplicatedKeysInMapping(let names, let context):
            let name = (names.min() ?? "").prefix(80).replacing("\n", with: " ")
            self.init("`\(name)` stands there twice, here first", at: "\(file):\(context.mark)")
        case .reader(let problem, _, _, _): self.init("is not YAML: \(problem)", at: file)
        case .dataCouldNotBeDecoded, .memory, .no, .writer, .emitter, .representer: self.init("is not YAML", at: file)
        }
    }
}
