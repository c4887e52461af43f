// Answers over HTTP: taken whole or not at all, whatever comes.

import CKernel
import Foundation
import Glibc
import KVModel
import KVSystem
import Testing

@Suite struct PlainHTTPTests {
    private static let lengthy = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nready"
    private static let chunked =
        "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnot\r\nA;x=y\r\n ready yet\r\n0\r\n\r\n"

    private func parse(_ text: String) -> PlainResponse? { PlainResponse(Array(text.utf8)) }

    @Test func bodiesOfALengthInChunksAndToTheEndAreTaken() throws {
        let lengthy = try #require(parse(Self.lengthy))
        #expect(lengthy.status == 200 && lengthy.body == Array("ready".utf8))
        let chunked = try #require(parse(Self.chunked))
        #expect(chunked.status == 503 && chunked.body == Array("not ready yet".utf8))
        let toTheEnd = try #require(parse("HTTP/1.0 404\r\nServer: x\r\n\r\nnothing here"))
        #expect(toTheEnd.status == 404 && toTheEnd.body == Array("nothing here".utf8))
    }

    /// A server that dies in the middle of its answer has given none.
    @Test(arguments: [lengthy, chunked]) func noBeginningOfAnAnswerIsOne(_ answer: String) {
        // Behind the line of the chunk of length 0 there is nothing to miss.
        let whole = answer == Self.chunked ? answer.utf8.count - 2 : answer.utf8.count
        for count in 0..<answer.utf8.count {
            let isTaken = PlainResponse(Array(answer.utf8.prefix(count))) != nil
            #expect(isTaken == (count >= whole), "\(count) bytes")
        }
    }

    @Test(arguments: [
        "", "\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 ok\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nready", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nx\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\n",
    ]) func whatIsNoAnswerIsRefused(_ answer: String) { #expect(parse(answer) == nil) }

    @Test func noBytesMakeItFail() {
        var source = RandomSource(seed: 5)
        for _ in 0..<20_000 {
            var bytes = Array((source.below(2) == 0 ? Self.lengthy : Self.chunked).utf8)
            for _ in 0...source.below(4) {
                bytes[source.below(bytes.count)] = UInt8(truncatingIfNeeded: source.below(256))
            }
            if let response = PlainResponse(bytes) { #expect(response.body.count <= bytes.count) }
        }
    }

    @Test func aServerThatSaysNothingIsGivenUp() throws {
        let listener = try checked(unsafe hf_tcp_listen("127.0.0.1", 0, 1), "listen")
        defer { hf_close(listener) }
        let port = UInt16(try checked(hf_socket_port(listener), "ask for the port"))
        let error = #expect(throws: SystemError.self) {
            try plainGet(host: "127.0.0.1", port: port, path: "/", within: Duration(milliseconds: 20))
        }
        #expect(error?.number == ETIMEDOUT)
    }
}
