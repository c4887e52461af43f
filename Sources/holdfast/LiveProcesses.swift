// The processes of a live replay, started from this very binary: a store on a temporary file, and agents. They log into
// files, which say where they can be reached, and end with their owner.

import Foundation
import KVAgent
import KVFlash
import KVModel
import KVStore
import KVSystem
import Synchronization

/// A folder for what these processes share. It goes with its owner, and so do the processes when this one is asked to end.
final class ScratchFolder {
    let url: URL
    private let places: Mutex<[String]>
    /// Locked as long as this process lives, however it ends.
    private let lock: Int32
    private var signals: [any DispatchSourceSignal] = []

    /// - Parameter purpose: Part of its name.
    init(_ purpose: String) throws {
        let parent = FileManager.default.temporaryDirectory
        let prefix = "holdfast-\(purpose)-"
        Self.removeAbandoned(in: parent, prefix: prefix)
        url = parent.appendingPathComponent("\(prefix)\(getpid())")
        places = Mutex([url.path])
        try? FileManager.default.removeItem(at: url)
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        lock = Self.locked(url)
        for number in [SIGINT, SIGTERM] {
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { [unowned self] in
                ChildProcess.killAll()
                remove()
                exit(128 + number)
            }
            source.resume()
            signals.append(source)
        }
    }

    /// Folders of runs that were killed hold drives of many gigabytes. Two things must say that one is abandoned: no process has
    /// its number, and nobody holds its lock; in another container the number may be another's.
    private static func removeAbandoned(in parent: URL, prefix: String) {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: parent.path)) ?? [] {
            guard name.hasPrefix(prefix), let number = Int32(name.dropFirst(prefix.count)), number > 0,
                kill(number, 0) != 0, errno == ESRCH
            else { continue }
            let folder = parent.appendingPathComponent(name)
            let lock = locked(folder)
            guard lock >= 0 else { continue }
            try? FileManager.default.removeItem(at: folder)
            close(lock)
        }
    }

    /// A descriptor of the folder's lock, held; negative: another process has it, or there is no such folder. It is a file of its own:
    /// the folder's own lock is taken by whoever opens a socket there.
    private static func locked(_ folder: URL) -> Int32 {
        let file = folder.appendingPathComponent("owner").path
        let descriptor = unsafe open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0, flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            return -1
        }
        return descriptor
    }

    /// A file that lies elsewhere goes with it.
    func removeAtEnd(_ path: String) { places.withLock { $0.append(path) } }

    private func remove() {
        for place in places.withLock({ $0 }) { try? FileManager.default.removeItem(atPath: place) }
    }

    deinit {
        for number in [SIGINT, SIGTERM] { signal(number, SIG_DFL) }
        for source in signals { source.cancel() }
        remove()
        close(lock)
    }
}

/// This process ends when another has: the one that started it. Killed, that one ends nobody any more, and a store and its agents
/// would hold their memory and their files for ever.
///
/// The kernel's own signal at a parent's death is no way: it comes when the thread ends that started the child.
func endThisProcess(with parent: Int32) {
    Thread.detachNewThread {
        // Where the kernel cannot tell, it lives on.
        if getppid() == parent, !waitForEnd(ofProcess: parent) { return }
        kill(getpid(), SIGKILL)
    }
}

/// A process of this binary that writes a log.
final class ChildProcess {
    /// Its number.
    let number: Int32
    private let process: Process
    private let log: URL

    init(_ arguments: [String], log: URL) throws {
        self.log = log
        try Data().write(to: log)
        let output = try FileHandle(forWritingTo: log)
        process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = arguments + ["--ends-with", "\(getpid())"]
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = output
        try process.run()
        number = process.processIdentifier
        _ = Self.running.withLock { [number] in $0.insert(number) }
    }

    /// Waits until the log says at which port of 127.0.0.1 it serves.
    func port(after words: String, within limit: KVModel.Duration = Duration(seconds: 60)) throws -> UInt16 {
        let deadline = MonotonicClock.now + limit
        while true {
            let text = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
            if let found = text.range(of: words + "127.0.0.1:") {
                let digits = text[found.upperBound...].prefix { $0.isNumber }
                if digits.endIndex < text.endIndex, let port = UInt16(digits) { return port }
            }
            guard process.isRunning, MonotonicClock.now < deadline else {
                throw OperatorError("a process of the live replay did not start: \(text.suffix(400))", at: log.path)
            }
            usleep(5000)
        }
    }

    /// Like the death of its machine: nothing is written any more.
    func kill() {
        _ = Self.running.withLock { $0.remove(number) }
        guard process.isRunning else { return }
        _ = Glibc.kill(number, SIGKILL)
        process.waitUntilExit()
    }

    /// All that were started and not yet ended, for the end of this process.
    static func killAll() { running.withLock { for number in $0 { _ = Glibc.kill(number, SIGKILL) } } }

    private static let running = Mutex<Set<Int32>>([])

    deinit { kill() }
}

/// A store with a file for its drive.
final class StoreProcess {
    private(set) var port: UInt16 = 0
    /// The file with its tenants' keys.
    let keys: String
    private let folder: URL
    private let arguments: [String]
    private var child: ChildProcess?

    /// Whether it is there.
    var isRunning: Bool { child != nil }

    /// - Parameter agents: That come to it.
    init(folder: URL, blocks: Int, blockBytes: Int, agents: Int) throws {
        self.folder = folder
        let data = folder.appendingPathComponent("store.flash").path
        keys = data + ".tenants"
        let extent = LiveDrive.extentBytes(blockBytes)
        let memory = LiveDrive.storeMemory(blockBytes, agents: agents)
        arguments = [
            "store", "--data", data, "--size", "\(LiveDrive.byteCount(LiveDrive.storeBlocks(blocks), blockBytes))",
            "--extent", "\(extent)", "--payload-max", "\(extent)", "--dram", "\(memory)", "--http", "",
        ]
        try start()
    }

    /// Starts it, again with what its drive holds.
    func start() throws {
        let child = try ChildProcess(
            arguments + ["--listen", "127.0.0.1:\(port)"], log: folder.appendingPathComponent("store.log"))
        port = try child.port(after: "address=tcp ")
        self.child = child
    }

    func kill() { child = nil }
}

/// An agent with a door of its own.
final class AgentProcess {
    /// Where its engines come.
    let socket: String
    private let configuration: String
    private let log: URL
    private var http: UInt16 = 0
    private var child: ChildProcess?

    /// - Parameter settings: The lines of its YAML file, but for its socket and its HTTP.
    init(folder: URL, number: Int, settings: String) throws {
        socket = folder.appendingPathComponent("agent-\(number)").path
        configuration = folder.appendingPathComponent("agent-\(number).yaml").path
        log = folder.appendingPathComponent("agent-\(number).log")
        try (settings + "socket: \(socket)\nhttp: 127.0.0.1:0\n").write(
            toFile: configuration, atomically: false, encoding: .utf8)
        try start()
    }

    /// Starts it, with nothing in its memory.
    func start() throws {
        let child = try ChildProcess(["agent", "--config", configuration], log: log)
        http = try child.port(after: "listening on ")
        self.child = child
    }

    func kill() { child = nil }

    /// Whether it is there.
    var isRunning: Bool { child != nil }

    /// How it is doing. Nil: it is dead, or says nothing.
    func status() -> AgentStatus? {
        guard isRunning,
            let answer = try? plainGet(host: "127.0.0.1", port: http, path: "/status", within: Duration(seconds: 20)),
            answer.status == 200
        else { return nil }
        return (try? JSONDecoder().decode(SidecarStatus.self, from: Data(answer.body)))?.agent
    }

    /// Lock step: time passes, everything comes to rest. How it is doing then; nil: it is dead.
    @discardableResult
    func rest(at time: Instant) throws -> AgentStatus? {
        guard isRunning else { return nil }
        let path = "/rest?at=\(time.nanoseconds)"
        guard
            let answer = try? plainGet(
                host: "127.0.0.1", port: http, path: path, method: "POST", within: Duration(seconds: 40)),
            answer.status == 200
        else { throw OperatorError("an agent does not come to rest", at: log.path) }
        return try JSONDecoder().decode(AgentStatus.self, from: Data(answer.body))
    }
}

/// How large a drive is made for so many blocks.
enum LiveDrive {
    /// Bytes of the extents in which blocks lie.
    static func extentBytes(_ blockBytes: Int) -> Int {
        (max(FlashGeometry.extentUnit, blockBytes) + FlashGeometry.extentUnit - 1) / FlashGeometry.extentUnit
            * FlashGeometry.extentUnit
    }

    /// Blocks of a store that can keep as many as are asked for: it keeps a 64th of its extents free for puts to come, and two at
    /// least.
    static func storeBlocks(_ blocks: Int) -> Int { blocks + max(2, (blocks + 62) / 63) }

    /// Memory of a store for payloads on their way: twice what its agents may have asked for at once, and no more than was ever
    /// needed. A scenario's store is flash; memory beyond that would be a tier that no model of it has.
    static func storeMemory(_ blockBytes: Int, agents: Int) -> Int {
        let asked = StoreConfiguration().credits * agents * extentBytes(blockBytes)
        return max(4 * extentBytes(blockBytes), min(2 * asked, 96 << 20))
    }

    /// The smallest drive for exactly so many blocks.
    static func byteCount(_ blocks: Int, _ blockBytes: Int) -> Int {
        let extent = extentBytes(blockBytes)
        let alignment = extent >= 1 << 20 ? 1 << 20 : FlashGeometry.extentUnit
        let headers = FlashGeometry.headerAreaOffset + blocks * FlashGeometry.headerBytes
        return (headers + alignment - 1) / alignment * alignment + blocks * extent
    }
}
