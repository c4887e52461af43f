// Sizes are read as they are written, in every unit that is ever printed.

import KVModel
import Testing

@Suite struct ByteSizeTests {
    @Test(arguments: [0, 1, 1023, 1024, 3 << 20, 5 << 30, 7 << 40, 9 << 50])
    func whatIsPrintedIsReadBack(bytes: Int) throws {
        #expect(try ByteSize.read(ByteSize.text(bytes), name: "size", at: "here") == bytes)
    }

    @Test(arguments: [("4096", 4096), ("2 MiB", 2 << 20), ("1.5kB", 1500), ("2PB", 2_000_000_000_000_000)])
    func unitsOfTenAndOfTwoAreMeant(text: String, bytes: Int) throws {
        #expect(try ByteSize.read(text, name: "size", at: "here") == bytes)
    }

    @Test(arguments: ["", "GiB", "1 gib", "1.2.3MB", "-1", "1e3", "9999999PiB"])
    func whatIsNoSizeIsRefused(text: String) {
        #expect(throws: OperatorError.self) { try ByteSize.read(text, name: "size", at: "here") }
    }
}
