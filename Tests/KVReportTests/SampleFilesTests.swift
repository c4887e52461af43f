// Writes the sample record where a person or the browser check wants it.

import Foundation
import KVReport
import Testing

/// Where to write the sample; without it these tests check that the files can be made.
private let folder = ProcessInfo.processInfo.environment["HOLDFAST_SAMPLE"]

@Test func sampleRecordAndPageCanBeWritten() throws {
    let record = Sample.record()
    let bytes = try record.encoded()
    let page = try Comparison([record]).page
    #expect(try Record(decoding: bytes, at: "sample.hfr") == record)
    #expect(page.utf8.count < 150_000)
    guard let folder else { return }
    try Data(bytes).write(to: URL(fileURLWithPath: folder + "/sample.hfr"))
    try Data(page.utf8).write(to: URL(fileURLWithPath: folder + "/sample.html"))
}
