// What `doctor` looks at in the machine: the kernel's own files under /proc and /sys, and what it allows this process.

import Foundation
import KVFlash
import KVMemory
import KVModel
import KVStore
import KVSystem

/// The machine against what the settings want of it.
struct MachineChecks {
    let settings: StoreConfiguration
    /// Whose memory it is, in words.
    var owner = "store"
    /// What that memory lies in.
    var memoryKind = TransparentHugePages.Kind.ordinary
    /// Whether it is to lie on huge pages.
    var wantsHugePages = true

    /// One finding for each thing, in the order of a start.
    var findings: [Finding] {
        [checksums, ring, memory, lockedMemory, hugePages] + memoryNodes + [descriptors, rdma] + ports
    }

    private var checksums: Finding {
        checksumsAreAccelerated
            ? Finding("checksums", .ok, "ISA-L does them")
            : Finding(
                "checksums", .warning, "ISA-L is not installed: they cost ten times the processor time",
                remedy: "install libisal2")
    }

    private var ring: Finding {
        do {
            try checkCanMakeRing()
            return Finding("io_uring", .ok, "allowed")
        } catch {
            // An agent has a ring for its local flash and for nothing else; most containers refuse it.
            guard owner == "store" || !settings.data.isEmpty else {
                return Finding("io_uring", .ok, "refused, and not needed without `nvme`")
            }
            return Finding("io_uring", error.operatorError)
        }
    }

    private var memory: Finding {
        guard let available = kibibytes("MemAvailable", in: "/proc/meminfo") else {
            return Finding("memory", .warning, "/proc/meminfo does not say what is available")
        }
        // Reserved huge pages are not counted as available, nor by a control group, and a store takes them first.
        let huge = reservedHugeBytes
        var (most, source, remedy) = (available + huge, "/proc/meminfo", "lower `dram`, or free memory")
        if let limit = MemoryLimit.now, limit.leftBytes < available {
            (most, source) = (limit.leftBytes + huge, limit.file)
            remedy = "lower `dram`, or raise the container's memory limit"
        }
        let words =
            "\(ByteSize.text(settings.dram)) wanted (`dram`), \(ByteSize.text(most)) available (\(source))"
        guard settings.dram <= most else { return Finding("memory", .problem, words, remedy: remedy) }
        guard settings.dram <= most / 10 * 9 else {
            return Finding("memory", .warning, words, remedy: "leave the rest of the machine a tenth")
        }
        return Finding("memory", .ok, words)
    }

    private var lockedMemory: Finding {
        // Bit 14 of the capabilities (CAP_IPC_LOCK): no limit holds.
        let capabilities = UInt64(value("CapEff", in: "/proc/self/status") ?? "", radix: 16) ?? 0
        if capabilities >> 14 & 1 == 1 { return Finding("locked memory", .ok, "no limit holds (CAP_IPC_LOCK)") }
        guard let limit = limit("Max locked memory") else { return Finding("locked memory", .ok, "no limit") }
        let words = "\(ByteSize.text(limit)) may be locked, the \(owner)'s buffers are \(ByteSize.text(settings.dram))"
        if limit >= settings.dram { return Finding("locked memory", .ok, words) }
        let remedy = "set LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited`"
        return settings.rdma.isOn
            ? Finding("locked memory", .problem, words + ": RDMA cannot register them", remedy: remedy)
            : Finding("locked memory", .warning, words + ": each transfer costs more processor time", remedy: remedy)
    }

    private var hugePages: Finding {
        guard wantsHugePages else { return Finding("huge pages", .ok, "not asked for") }
        let free = number("HugePages_Free", in: "/proc/meminfo") ?? 0
        let size = kibibytes("Hugepagesize", in: "/proc/meminfo") ?? 0
        if free * size >= settings.dram, free > 0 {
            return Finding("huge pages", .ok, "\(free) reserved ones of \(ByteSize.text(size)) are free")
        }
        let rule = TransparentHugePages.rule(for: memoryKind) ?? "off"
        if TransparentHugePages.areGiven(to: memoryKind) {
            return Finding("huge pages", .ok, "transparent ones (the kernel's rule is \(rule))")
        }
        let (what, word) = memoryKind == .file ? ("memory files get", "advise") : ("memory gets", "madvise")
        return Finding(
            "huge pages", .warning,
            "\(free) reserved ones are free, and \(what) no transparent ones: the kernel's rule is \(rule)",
            remedy: "write \(word) to /sys\(memoryKind.ruleFile), or reserve them (vm.nr_hugepages)")
    }

    /// An agent has a setting of its own for the node.
    private var memoryNodes: [Finding] {
        guard owner == "store" else { return [] }
        let count = Numa.nodes.count
        guard count > 1 else { return [Finding("NUMA", .ok, "one memory node")] }
        return [
            Finding(
                "NUMA", .warning, "\(count) memory nodes",
                remedy: "run one \(owner) a node, under numactl, beside its drives and its network card")
        ]
    }

    private var descriptors: Finding {
        let wanted = settings.openFilesWanted
        guard let limit = openFilesMax else { return Finding("open files", .ok, "no limit") }
        let words =
            "\(limit) allowed, \(wanted) wanted for \(settings.sessions) "
            + (owner == "store" ? "sessions" : "engines")
        return limit >= wanted
            ? Finding("open files", .ok, words)
            : Finding("open files", .warning, words, remedy: "set LimitNOFILE=\(max(wanted, 65_536)) in the unit")
    }

    private var rdma: Finding {
        let folder = "/sys/class/infiniband"
        let devices = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()
        let listed = devices.joined(separator: ", ")
        if !settings.rdma.isOn {
            return Finding(
                "RDMA", .ok, devices.isEmpty ? "no device, and none is asked for" : "not asked for; there is \(listed)")
        }
        guard settings.rdma.takesAnyDevice ? !devices.isEmpty : devices.contains(settings.rdma.device) else {
            return Finding(
                "RDMA", .problem, devices.isEmpty ? "no device" : "no `\(settings.rdma.device)`; there is \(listed)",
                remedy: "load its driver, or leave out `rdma`")
        }
        let active = devices.filter { device in
            let ports = (try? FileManager.default.contentsOfDirectory(atPath: "\(folder)/\(device)/ports")) ?? []
            return ports.contains { text("\(folder)/\(device)/ports/\($0)/state")?.contains("ACTIVE") == true }
        }
        return active.contains(settings.rdma.device) || (settings.rdma.takesAnyDevice && !active.isEmpty)
            ? Finding("RDMA", .ok, "\(active.joined(separator: ", ")) is active")
            : Finding("RDMA", .problem, "no port of \(listed) is active", remedy: "look at cable and switch")
    }

    private var ports: [Finding] {
        let named = [
            ("listen", settings.listen), ("tlsListen", settings.tlsListen), ("http", settings.http),
            ("rdmaListen", settings.rdma.isOn ? settings.rdmaListen : ""),
        ]
        return named.filter { !$0.1.isEmpty }.map { name, endpoint in
            do throws(OperatorError) {
                let (host, port) = try splitEndpoint(endpoint, option: name)
                do { try checkCanListen(on: host, port: port) } catch {
                    throw OperatorError(
                        "\(error)", remedy: "name another with `\(name)`, or stop who listens there")
                }
                return Finding(name, .ok, "\(endpoint) is free")
            } catch { return Finding(name, error) }
        }
    }

    // MARK: The kernel's files

    private func text(_ path: String) -> String? { try? String(contentsOfFile: path, encoding: .utf8) }

    /// What stands behind `name:` in a file of such lines.
    private func value(_ name: String, in path: String) -> String? {
        for line in (text(path) ?? "").split(separator: "\n") where line.hasPrefix(name + ":") {
            return line.dropFirst(name.count + 1).trimmingCharacters(in: .whitespaces)
        }
        return nil
    }

    private func number(_ name: String, in path: String) -> Int? {
        value(name, in: path).flatMap { Int($0.prefix { $0.isNumber }) }
    }

    /// Bytes of a value in kB, as the kernel calls 1024 bytes.
    private func kibibytes(_ name: String, in path: String) -> Int? { number(name, in: path).map { $0 * 1024 } }

    /// The soft limit of this process; nil when there is none.
    private func limit(_ name: String) -> Int? {
        for line in (text("/proc/self/limits") ?? "").split(separator: "\n") where line.hasPrefix(name) {
            return line.dropFirst(name.count).split(separator: " ").first.flatMap { Int($0) }
        }
        return nil
    }
}
