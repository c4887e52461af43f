// TLS as a pump: swift-nio-ssl ends the encryption at one end of a local socket pair, and the sessions of the ordinary
// lanes (or the ordinary client) run over the other. A slower path by one more copy through the kernel each way; in
// exchange not one line of the protocol exists twice.

import Glibc
import KVModel
import KVSystem
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS

/// One side of a pump. Bytes read here are written there; when one side is slow, the other is not read.
final class PumpHandler: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var context: ChannelHandlerContext?
    private var partner: PumpHandler?
    private var waiting: [ByteBuffer] = []
    private var readIsPending = false
    private var isEncrypted: Bool
    private var isReady: Bool
    /// Called once when TLS is up.
    private let onReady: (PumpHandler, ChannelHandlerContext) -> Void
    /// Hears of what goes wrong, before the channel closes.
    private let onError: (any Error) -> Void

    /// - Parameter isEncrypted: The side of the network; it pumps only after the handshake.
    init(
        isEncrypted: Bool, onError: @escaping (any Error) -> Void = { _ in },
        onReady: @escaping (PumpHandler, ChannelHandlerContext) -> Void = { _, _ in }
    ) {
        self.isEncrypted = isEncrypted
        isReady = !isEncrypted
        self.onReady = onReady
        self.onError = onError
    }

    /// Joins two sides of one event loop.
    static func join(_ one: PumpHandler, _ other: PumpHandler) {
        one.partner = other
        other.partner = one
        one.partnerIsThere()
        other.partnerIsThere()
        // One side may have ended while the other was set up: what it said before still goes.
        if !one.isActive { one.leave() }
        if !other.isActive { other.leave() }
    }

    private var isActive: Bool { context?.channel.isActive ?? false }

    private func partnerIsThere() {
        for buffer in waiting { partner?.write(buffer) }
        waiting = []
        partner?.context?.flush()
        resumeReading()
    }

    private func write(_ buffer: ByteBuffer) {
        guard let context else { return }
        context.write(wrapOutboundOut(buffer), promise: nil)
    }

    private var mayRead: Bool {
        if !isReady { return true }
        return partner?.context?.channel.isWritable ?? false
    }

    private func resumeReading() {
        guard readIsPending, mayRead else { return }
        readIsPending = false
        context?.read()
    }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        partner = nil
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = unwrapInboundIn(data)
        if let partner { partner.write(buffer) } else { waiting.append(buffer) }
    }

    func channelReadComplete(context: ChannelHandlerContext) { partner?.context?.flush() }

    func channelInactive(context: ChannelHandlerContext) {
        leave()
        context.fireChannelInactive()
    }

    /// This side has ended: so does the other, behind what it was given.
    private func leave() {
        let other = partner
        partner = nil
        other?.partner = nil
        other?.finish()
    }

    /// Closes this side behind what was written to it. TLS does that by itself; on a socket an empty write is done when
    /// all before it are.
    private func finish() {
        guard let context else { return }
        if isEncrypted { return context.close(promise: nil) }
        let channel = context.channel
        context.writeAndFlush(wrapOutboundOut(ByteBuffer())).whenComplete { _ in channel.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        onError(error)
        context.close(promise: nil)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { partner?.resumeReading() }
    }

    func read(context: ChannelHandlerContext) {
        if mayRead { context.read() } else { readIsPending = true }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if isEncrypted, case TLSUserEvent.handshakeCompleted? = event as? TLSUserEvent {
            isReady = true
            onReady(self, context)
        }
        context.fireUserInboundEventTriggered(event)
    }
}

/// The way from a TLS channel to one end of a socket pair.
enum TLSPump {
    /// Pumps between this side and `descriptor`, which it owns from here on.
    static func attach(_ side: PumpHandler, _ context: ChannelHandlerContext, descriptor: Int32) {
        let channel = context.channel
        let loop = context.eventLoop
        let outer = NIOLoopBound(side, eventLoop: loop)
        let inner = NIOLoopBound(PumpHandler(isEncrypted: false), eventLoop: loop)
        ClientBootstrap(group: loop).channelInitializer { local in
            local.eventLoop.makeCompletedFuture { try local.pipeline.syncOperations.addHandler(inner.value) }
        }.withConnectedSocket(descriptor).whenComplete { result in
            switch result {
            case .success: PumpHandler.join(outer.value, inner.value)
            case .failure: channel.close(promise: nil)
            }
        }
    }

    /// What went wrong with certificates and keys, in words for a person.
    static func context(
        _ configuration: TLSConfiguration, place: String
    ) throws(OperatorError) -> NIOSSLContext {
        do { return try NIOSSLContext(configuration: configuration) } catch {
            throw OperatorError(
                "TLS cannot be set up (\(TLSWords.of(error)))", at: place,
                remedy: "check certificate, key and authority files")
        }
    }

    /// Throws where a PEM file cannot be read: the library calls that one in which there is nothing.
    static func checkCanRead(_ path: String) throws(OperatorError) {
        guard unsafe access(path, R_OK) != 0 else { return }
        let reason = errno
        throw OperatorError(
            reason == ENOENT ? "there is no such file" : SystemError(number: reason, doing: "read it").description,
            at: path, remedy: "give a PEM file")
    }

    /// The certificates of a PEM file.
    static func certificates(_ path: String) throws(OperatorError) -> [NIOSSLCertificateSource] {
        try checkCanRead(path)
        do { return try NIOSSLCertificate.fromPEMFile(path).map { .certificate($0) } } catch {
            throw OperatorError(
                "no certificate can be read (\(TLSWords.of(error)))", at: path, remedy: "give a PEM file")
        }
    }

    /// The key of a PEM file.
    static func privateKey(_ path: String) throws(OperatorError) -> NIOSSLPrivateKeySource {
        try checkCanRead(path)
        do { return .privateKey(try NIOSSLPrivateKey(file: path, format: .pem)) } catch {
            throw OperatorError(
                "no private key can be read (\(TLSWords.of(error)))", at: path, remedy: "give a PEM file")
        }
    }
}
