// Names of clients in what people read.

import KVModel
import Testing

@Suite struct PlainLineTests {
    @Test(arguments: [
        ("llama-70b", "llama-70b"), ("größe 日本", "größe 日本"), ("a\nb", "a\u{FFFD}b"), ("a\r\nb", "a\u{FFFD}\u{FFFD}b"),
        ("\u{1B}[2J", "\u{FFFD}[2J"), ("a\u{2028}b\u{85}", "a\u{FFFD}b\u{FFFD}"),
    ])
    func whatSteersATerminalIsMasked(text: String, plain: String) {
        #expect(text.plainLine == plain)
        #expect(text.hasControlCharacters == (text != plain))
    }
}
