// One question over HTTP to a server of our own, for a command that asks a running agent. No redirects, no encryption.

import CKernel
import Glibc
import KVModel

/// What a server answered.
public struct PlainResponse: Sendable {
    /// 200, 404, …
    public var status: Int
    /// The body as it came.
    public var body: [UInt8]
}

/// Asks `GET path` (or another method, without a body) of a server and waits for the whole answer.
///
/// - Parameter bytesMax: A longer answer is an error.
public func plainGet(
    host: String, port: UInt16, path: String, method: String = "GET", within limit: Duration,
    bytesMax: Int = 256 << 20
) throws(SystemError) -> PlainResponse {
    let place = "\(host):\(port)"
    let deadline = MonotonicClock.now + limit
    let descriptor = unsafe try checked(hf_tcp_connect(host, port), "connect to \(place)")
    defer { hf_close(descriptor) }
    func wait(for events: Int32) throws(SystemError) {
        var waiting = pollfd(fd: descriptor, events: Int16(events), revents: 0)
        let left = max(0, (deadline - MonotonicClock.now).nanoseconds / 1_000_000)
        guard unsafe poll(&waiting, 1, Int32(clamping: left)) > 0 else {
            throw SystemError(number: ETIMEDOUT, doing: "reach \(place)")
        }
    }
    try wait(for: POLLOUT)
    _ = try checked(hf_socket_error(descriptor), "connect to \(place)")
    // The server of this protocol version closes when it has answered.
    let head = ["\(method) \(path) HTTP/1.1", "Host: \(place)", "Content-Length: 0", "Connection: close"]
    var request = Array((head.joined(separator: "\r\n") + "\r\n\r\n").utf8)[...]
    while !request.isEmpty {
        let sent = unsafe request.withUnsafeBytes { unsafe hf_send(descriptor, $0.baseAddress, $0.count, 0) }
        if sent == -Int64(EAGAIN) {
            try wait(for: POLLOUT)
        } else {
            request = request.dropFirst(Int(try checked(sent, "ask \(place)")))
        }
    }
    var answer: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 64 << 10)
    while true {
        let count = unsafe piece.withUnsafeMutableBytes { unsafe hf_receive(descriptor, $0.baseAddress, $0.count) }
        if count == -Int64(EAGAIN) {
            try wait(for: POLLIN)
        } else {
            guard try checked(count, "hear \(place)") > 0 else { break }
            answer += piece[..<Int(count)]
            guard answer.count <= bytesMax else { throw SystemError(number: EMSGSIZE, doing: "hear \(place)") }
            guard MonotonicClock.now < deadline else { throw SystemError(number: ETIMEDOUT, doing: "hear \(place)") }
        }
    }
    guard let response = PlainResponse(answer) else { throw SystemError(number: EPROTO, doing: "understand \(place)") }
    return response
}

extension PlainResponse {
    /// Takes a whole answer apart; a body in chunks is put together. Nil for what is no answer, or not all of one.
    package init?(_ answer: [UInt8]) {
        let end = Array("\r\n\r\n".utf8)
        guard let split = answer.indices.dropLast(3).first(where: { answer[$0..<($0 + 4)].elementsEqual(end) }) else {
            return nil
        }
        let lines = String(decoding: answer[..<split], as: UTF8.self).split(separator: "\r\n")
        let words = lines.first?.split(separator: " ", maxSplits: 2) ?? []
        guard words.count >= 2, words[0].hasPrefix("HTTP/1."), let status = Int(words[1]) else { return nil }
        self.status = status
        func header(_ name: String) -> String? {
            lines.dropFirst().lazy.map { $0.lowercased() }.first { $0.hasPrefix(name + ":") }
                .map { $0.dropFirst(name.count + 1).filter { $0 != " " } }
        }
        let rest = answer[(split + 4)...]
        guard header("transfer-encoding") == "chunked" else {
            if let length = header("content-length"), Int(length) != rest.count { return nil }
            body = Array(rest)
            return
        }
        body = []
        var left = rest
        while let line = left.firstIndex(of: 0x0A) {
            let digits = String(decoding: left[..<line], as: UTF8.self).prefix(while: \.isHexDigit)
            guard let count = Int(digits, radix: 16), count <= left.endIndex - line - 1 else { return nil }
            if count == 0 { return }
            body += left[(line + 1)..<(line + 1 + count)]
            left = left[(line + 1 + count)...].dropFirst(2)
        }
        return nil
    }
}
