// What `doctor` looks at in a store as a whole: whether its drives make up one, and the files it needs beside them.

import Foundation
import KVFlash
import KVModel
import KVStore

/// A store's drives and files against its settings. They are read, never locked or changed.
struct StoreChecks {
    let settings: StoreConfiguration

    /// First the drives, then the files.
    var findings: [Finding] { drives + certificates + (settings.data.isEmpty ? [] : [tenants, catalogue]) }

    // MARK: Drives

    private var drives: [Finding] {
        let inspected = settings.data.map { path in (path, superblock: try? FlashDevice.inspect(path: path)) }
        let known = inspected.compactMap { path, superblock in superblock.map { (path: path, superblock: $0) } }
        let others = inspected.filter { $0.superblock == nil }.map(\.0)
        // None of them is a drive yet: all are formatted, and each must be fit for it.
        guard let first = known.first else { return others.flatMap(checks) }
        let free: [Int]
        do { free = try Superblock.check(known, needsAll: false) } catch {
            return known.flatMap { checks($0.path) } + [Finding("drives", error.operatorError)]
        }
        let count = first.superblock.identity.count
        let words = "\(count - free.count) of the store's \(count) drives are there"
        return known.flatMap { checks($0.path) } + others.flatMap { left($0) }
            + [replaces(others, free, words) ?? sum(free, words)]
    }

    private func checks(_ path: String) -> [Finding] {
        DriveChecks(path: path, size: settings.size, extent: settings.extent).findings
    }

    /// One that is not a drive, among others that are.
    private func left(_ path: String) -> [Finding] {
        switch settings.missing {
        case .refuse:
            let found = checks(path).first { $0.verdict == .problem }
            return [
                found ?? Finding(path, .problem, "it is no drive of this store, and the others are", remedy: remedy)
            ]
        case .accept: return [Finding(path, .warning, "it is left out: the blocks it holds are misses")]
        case .replace: return checks(path)
        }
    }

    private var remedy: String { "bring it back, or start with `missing` accept or replace" }

    private func replaces(_ blank: [String], _ free: [Int], _ words: String) -> Finding? {
        guard settings.missing == .replace, !blank.isEmpty else { return nil }
        return blank.count == free.count
            ? Finding("drives", .warning, "\(words); blank ones take the places of the others")
            : Finding(
                "drives", .problem, "\(words), and \(blank.count) are blank",
                remedy: "name one for each that is missing")
    }

    private func sum(_ free: [Int], _ words: String) -> Finding {
        if free.isEmpty { return Finding("drives", .ok, words) }
        return settings.missing == .accept
            ? Finding("drives", .warning, "\(words): the blocks of the others are misses")
            : Finding("drives", .problem, words, remedy: remedy)
    }

    // MARK: Files

    private var certificates: [Finding] {
        guard !settings.tlsListen.isEmpty else { return [] }
        let files = [
            ("tlsCertificate", settings.tlsCertificate), ("tlsKey", settings.tlsKey),
            ("tlsClientAuthority", settings.tlsClientAuthority),
        ]
        let found = files.filter { !$0.1.isEmpty }.map { name, path in
            FileManager.default.isReadableFile(atPath: path)
                ? Finding(name, .ok, "\(path) can be read")
                : Finding(name, .problem, "\(path) cannot be read", remedy: "give its path, and it to the store's user")
        }
        guard found.allSatisfy({ $0.verdict == .ok }), let trouble = certificateTrouble else { return found }
        return found.map { $0.about == trouble.about ? trouble : $0 }
    }

    /// What clients would say of the certificate. Where they may come another way, too, it keeps no store from its start.
    private var certificateTrouble: Finding? {
        do {
            guard let trouble = try settings.certificateTrouble() else { return nil }
            let isOnlyWay = settings.listen.isEmpty && !settings.rdma.isOn
            return Finding(
                "tlsCertificate", trouble.isRefused && isOnlyWay ? .problem : .warning,
                "\(settings.tlsCertificate) \(trouble.words)", remedy: "renew it, and start the store again")
        } catch { return Finding("tlsCertificate", error) }
    }

    private var tenants: Finding {
        let path = settings.tenantsPath
        guard FileManager.default.fileExists(atPath: path) else {
            return folderProblem("tenants", of: path) ?? lost("tenants", path)
                ?? Finding("tenants", .ok, "\(path) will be made, with a new key for `local`")
        }
        do {
            return Finding("tenants", .ok, "\(try Tenants(file: path).byName.count) in \(path)")
        } catch { return Finding("tenants", error) }
    }

    private var catalogue: Finding {
        let path = settings.cataloguePath
        guard FileManager.default.fileExists(atPath: path) else {
            return folderProblem("catalogue", of: path) ?? lost("catalogue", path)
                ?? Finding("catalogue", .ok, "\(path) will be made")
        }
        return FileManager.default.isWritableFile(atPath: path)
            ? Finding("catalogue", .ok, path)
            : Finding("catalogue", .problem, "\(path) may not be written to", remedy: "give it to the store's user")
    }

    /// A file that the store will not make anew beside drives that have one elsewhere.
    private func lost(_ name: String, _ path: String) -> Finding? {
        guard let file = settings.lostFiles.first(where: { $0.path == path }) else { return nil }
        return Finding(
            name, .problem, "there is no \(path), and the drives are a store's already",
            remedy: "name the store's own with \(file.option); what is named is made where it is missing")
    }

    private func folderProblem(_ name: String, of path: String) -> Finding? {
        let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
        guard FileManager.default.fileExists(atPath: folder) else {
            return Finding(name, .problem, "there is no folder \(folder)", remedy: "make it, or name another place")
        }
        guard FileManager.default.isWritableFile(atPath: folder) else {
            return Finding(name, .problem, "\(folder) may not be written to", remedy: "give it to the store's user")
        }
        return nil
    }
}
