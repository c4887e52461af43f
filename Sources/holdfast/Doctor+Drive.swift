// What `doctor` looks at in a drive: whether a store would take it, and what it would meet there.

import Foundation
import KVFlash
import KVModel

/// One device or file. It is read, never locked or changed.
struct DriveChecks {
    let path: String
    /// Bytes of a file that does not exist yet.
    let size: Int?
    /// Whose it will be.
    var owner = "store"
    /// Bytes of an extent, where they are settled before the drive is formatted.
    var extent: Int?

    /// What it holds, and what the store would meet; one problem ends the list.
    var findings: [Finding] {
        guard FileManager.default.fileExists(atPath: path) else { return [newFile] }
        if let other = otherKind { return [other] }
        do {
            let superblock = try FlashDevice.inspect(path: path)
            let identity = superblock.identity
            let held = Finding(
                path, .ok,
                "drive \(identity.number) of a store's \(identity.count), counted from 0, "
                    + "\(ByteSize.text(superblock.geometry.totalBytes)) in extents of "
                    + ByteSize.text(superblock.geometry.extentBytes))
            return [held] + use + transfers
        } catch .notADrive(_, found: "nothing") {
            return [empty] + use + transfers
        } catch .notADrive(let path, let found) {
            return [
                Finding(
                    path, .problem, "it holds \(found), which the \(owner) will not overwrite",
                    remedy: owner == "store"
                        ? "name another, or start the store with --force and lose that" : "name another, or empty it")
            ]
        } catch { return [Finding(path, error.operatorError)] }
    }

    /// What no force makes a drive of.
    private var otherKind: Finding? {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { return nil }
        let kind = status.st_mode & S_IFMT
        if kind == S_IFREG || kind == S_IFBLK { return nil }
        let words = kind == S_IFDIR ? "it is a folder" : "it is neither a block device nor a file"
        return Finding(path, .problem, words, remedy: "name a block device, or a file in a folder")
    }

    private var empty: Finding {
        do {
            let held = try DeviceFile(path: path, access: .readOnly).byteCount
            guard size != nil || held > 0 else {
                return Finding(path, .problem, "an empty file", remedy: "say how large it will be with --size")
            }
            if let extent { _ = try FlashGeometry(totalBytes: size ?? held, extentBytes: extent) }
            return Finding(path, .ok, "empty: the \(owner) will format it")
        } catch { return Finding(path, error.operatorError) }
    }

    private var newFile: Finding {
        guard !path.hasPrefix("/dev/") else {
            return Finding(path, .problem, "there is no such device", remedy: "`lsblk` names those that are there")
        }
        let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
        guard let size else {
            return Finding(path, .problem, "there is no such file", remedy: "say how large it will be with --size")
        }
        let attributes = try? FileManager.default.attributesOfFileSystem(forPath: folder)
        guard let free = (attributes?[.systemFreeSize] as? NSNumber)?.intValue else {
            return Finding(path, .problem, "there is no folder \(folder)", remedy: "make it first")
        }
        guard FileManager.default.isWritableFile(atPath: folder) else {
            return Finding(path, .problem, "\(folder) may not be written to", remedy: "give it to the \(owner)'s user")
        }
        let words = "a new file of \(ByteSize.text(size)), \(ByteSize.text(free)) are free"
        return size <= free
            ? Finding(path, .ok, words)
            : Finding(path, .problem, words, remedy: "make it smaller, or free room")
    }

    /// What keeps this process from taking it now.
    private var use: [Finding] {
        guard FileManager.default.isWritableFile(atPath: path) else {
            return [Finding(path, .problem, "this user may not write to it", remedy: "give it to the \(owner)'s user")]
        }
        let mounts = (try? String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)) ?? ""
        let name = URL(fileURLWithPath: path).resolvingSymlinksInPath().path
        for line in mounts.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard let device = words.first, words.count > 1 else { continue }
            if device == name || isPartition(String(device), of: name) {
                return [Finding(path, .problem, "it is mounted on \(words[1])", remedy: "unmount it, or name another")]
            }
        }
        return []
    }

    /// `/dev/nvme0n1p2` of `/dev/nvme0n1`, `/dev/sda1` of `/dev/sda`.
    private func isPartition(_ device: String, of whole: String) -> Bool {
        guard whole.hasPrefix("/dev/"), device.hasPrefix(whole) else { return false }
        return device.dropFirst(whole.count).wholeMatch(of: /p?\d+/) != nil
    }

    /// Whether transfers pass the page cache, and whether a flush is needed for each promise.
    private var transfers: [Finding] {
        do {
            let traits = try DeviceTraits(path: path)
            var findings: [Finding] = []
            if traits.isInUse {
                findings.append(
                    Finding(
                        path, .problem, "another process has it open, or it is mounted",
                        remedy: "stop the other user, or unmount it"))
            }
            if !traits.isDirect {
                findings.append(
                    Finding(
                        path, .warning, "its file system has no O_DIRECT: payloads go through the page cache",
                        remedy: "use a device, or a file on ext4 or XFS"))
            }
            findings.append(
                Finding(
                    path, .ok,
                    traits.hasVolatileCache
                        ? "its write cache is volatile: every promise is flushed" : "its write cache needs no flush"))
            return findings
        } catch { return [Finding(path, error.operatorError)] }
    }
}
