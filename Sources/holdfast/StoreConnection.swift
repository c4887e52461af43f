// How `ctl` reaches a store: the options that every order has, and the real client behind them.

import ArgumentParser
import Foundation
import KVIdentity
import KVModel
import KVStore
import KVSystem
import KVTransport

/// Where a store is and who asks.
struct StoreConnectionOptions: ParsableArguments {
    @Option(name: .long, help: ArgumentHelp("The store's address.", valueName: "address"))
    var store = "127.0.0.1:9460"

    @Option(name: .long, help: ArgumentHelp("Whose key proves who asks.", valueName: "name"))
    var tenant = "local"

    @Option(
        name: .long,
        help: ArgumentHelp("The file of keys that the store made or was given (`--tenants` there).", valueName: "file"))
    var keys: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "Goes over RDMA by this device, or `auto`; --store is then where the store says `rdma-listen`.",
            valueName: "device"))
    var rdma: String?

    @Option(
        name: .long,
        help: ArgumentHelp("Goes over TLS: the file of the authority of the store's certificate.", valueName: "file"))
    var tlsAuthority: String?

    @Option(
        name: .long,
        help: ArgumentHelp(
            "A name that the store's certificate may stand for; one for the address is always taken.", valueName: "name"
        )
    )
    var tlsName: String?

    @Option(
        name: .long,
        help: ArgumentHelp("The own certificate, where the store wants one of its clients.", valueName: "file"))
    var tlsCertificate: String?

    @Option(name: .long, help: ArgumentHelp("That certificate's key.", valueName: "file"))
    var tlsKey: String?

    @Option(
        name: .long, parsing: .unconditional,
        help: ArgumentHelp("Seconds that an answer may take.", valueName: "seconds"))
    var within = 10.0

    @Flag(name: .long, help: "Prints JSON.")
    var json = false

    mutating func validate() throws {
        guard within > 0, within <= 86_400 else {
            throw ValidationError("--within is a number of seconds, more than 0 and at most a day")
        }
        guard tlsAuthority != nil || (tlsName ?? tlsCertificate ?? tlsKey) == nil else {
            throw ValidationError("--tls-name, --tls-certificate and --tls-key go with --tls-authority")
        }
        guard (tlsCertificate == nil) == (tlsKey == nil) else {
            throw ValidationError("--tls-certificate and --tls-key go together")
        }
    }

    /// A client with room for `payloadBytes` of payload.
    func connect(payloadBytes: Int = 4096) throws(OperatorError) -> StoreConnection {
        let (host, port) = try splitEndpoint(store, option: "--store")
        guard let keys else {
            throw OperatorError(
                "a store answers only who has a key", at: "--keys", remedy: "name the file of keys that the store made")
        }
        guard let own = try Tenants(file: keys).byName[tenant] else {
            throw OperatorError("there is no tenant `\(tenant)`", at: keys)
        }
        let way = try route(host, port)
        do {
            let memory = try BlockMemory(byteCount: max(4096, payloadBytes.roundedUp(toMultipleOf: 4096)))
            let client = try StoreClient(
                StoreClientConfiguration(routes: [way], tenant: tenant, secret: own.secret),
                memory: memory, sink: { _ in })
            return StoreConnection(client: client, memory: memory, limit: Duration(seconds: within), address: store)
        } catch { throw OperatorError(error.description, at: "--store") }
    }

    /// One way and no other, so that an answer shows that this way works.
    private func route(_ host: String, _ port: UInt16) throws(OperatorError) -> StoreRoute {
        if let tlsAuthority {
            guard rdma == nil else { throw OperatorError("RDMA carries no TLS", at: "--rdma") }
            let configuration = TLSClientConfiguration(
                authority: tlsAuthority, serverName: tlsName ?? host, certificateChain: tlsCertificate,
                privateKey: tlsKey)
            return try .tls(host: host, port: port, configuration)
        }
        guard let rdma else { return .tcp(host: host, port: port) }
        return .verbs(host: host, port: port, place: VerbsConfiguration(device: rdma).place)
    }
}

/// A connected client and its memory.
struct StoreConnection {
    let client: StoreClient
    let memory: BlockMemory
    let limit: Duration
    let address: String

    /// Asks, and throws what the store says when it is not one of `accepted`.
    func ask(
        _ request: Request, slot: MemorySlice? = nil, accepting accepted: [Status] = [.ok]
    ) async throws -> Response {
        let response = await client.call(request, slot: slot, within: limit)
        guard accepted.contains(response.status) else { throw refusal(response) }
        return response
    }

    /// An order of an operator and its result.
    func order(_ verb: String, _ arguments: OrderArguments = OrderArguments()) async throws -> [UInt8] {
        let json = try encodeJSON(arguments)
        let response = try await ask(.administer(verb: verb, arguments: json))
        guard case .text(let text) = response.body else { return [] }
        return text
    }

    /// An order of an operator and what it did.
    func result(_ verb: String, _ arguments: OrderArguments = OrderArguments()) async throws -> OrderResult {
        try JSONDecoder().decode(OrderResult.self, from: Data(try await order(verb, arguments)))
    }

    /// All pages of a list, one behind the other.
    func pages<Entry>(_ verb: String, of entries: (OrderResult) -> [Entry]?) async throws -> [Entry] {
        var all: [Entry] = []
        var cursor = 0
        repeat {
            let page = try await result(verb, OrderArguments(cursor: cursor))
            all += entries(page) ?? []
            cursor = page.next ?? 0
        } while cursor != 0
        return all
    }

    /// The handle of a namespace that is there.
    func known(_ name: String) async throws -> NamespaceHandle {
        // Opening makes what is not there; a question must not.
        _ = try await space(name)
        return try await namespace(name)
    }

    /// How a namespace that is there is doing.
    func space(_ name: String) async throws -> StoreStatus.Namespace {
        guard let found = try await result("namespaces", OrderArguments(namespace: name)).namespaces?.first else {
            throw OperatorError("there is no namespace `\(name)`", at: address, remedy: "`ctl namespace ls` names them")
        }
        return found
    }

    /// The handle of a namespace, which the store makes if it is not there.
    func namespace(_ name: String) async throws -> NamespaceHandle {
        let response = try await ask(.openNamespace(name: name))
        guard case .namespace(let handle) = response.body else {
            throw OperatorError("the store did not say how it calls the namespace", at: address)
        }
        return handle
    }

    private func refusal(_ response: Response) -> OperatorError {
        var what = "the store says `\(response.status)`"
        if case .text(let text) = response.body, !text.isEmpty { what = String(decoding: text, as: UTF8.self) }
        switch response.status {
        case .disconnected where what.contains("unknown tenant or wrong key"):
            return OperatorError(
                "the store refuses this tenant, or its key is wrong", at: address,
                remedy: "--keys must name the file of tenants that this store was started with")
        case .disconnected:
            return OperatorError("no store answers (\(what))", at: address, remedy: "is it running there?")
        case .deadlinePassed:
            return OperatorError(
                "the store did not answer in time", at: address, remedy: "give it longer with --within")
        default: return OperatorError(what, at: address)
        }
    }
}

/// A key of 64 hexadecimal digits, as `ls` prints it.
func readKey(_ text: String) throws(OperatorError) -> FullKey {
    guard let bytes = bytes(hex: text), bytes.count == 32 else {
        throw OperatorError("`\(text)` is not a key of 64 hexadecimal digits", remedy: "`ctl ls` prints keys")
    }
    return FullKey(bytes: bytes)
}
