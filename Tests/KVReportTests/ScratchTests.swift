import Foundation
import KVReport
import Testing

@Test func writesTheSample() throws {
    guard let folder = ProcessInfo.processInfo.environment["HOLDFAST_SAMPLE"] else { return }
    try Data(try Sample.record().encoded()).write(to: URL(fileURLWithPath: folder + "/sample.hfr"))
}
