// Power cuts: a worker in a guest writes and erases on an NVMe disk whose unflushed writes are lost, all or some, when the
// power goes. This machine then opens the disk's image as a file and looks what is left; the next guest goes on with it.

import Foundation
import KVFlash
import KVModel

/// Guests that lose their power at several moments, each with several fates of what was not flushed.
struct FlashPowerCampaign {
    let quick: Bool
    let seed: UInt64
    private static let extentBytes = 64 << 10
    private static let driveBytes = 32 << 20
    private static let lab = "Tools/vm-lab"

    /// Operations before the cut: in the first, while the queue fills, in full run, after the first round over the drive.
    private var moments: [Int] { quick ? [1, 6, 40, 150, 400] : [1, 2, 4, 6, 10, 25, 40, 80, 150, 250, 400, 800] }
    /// 0 loses every write that was not flushed; another seed keeps a random part of them.
    private var fates: [UInt64] { quick ? [0, seed, seed + 1] : [0] + (0..<7).map { seed + $0 } }

    func run() throws -> CampaignResult {
        var result = CampaignResult(name: "flash power")
        let began = Date()
        let folder = try ScratchFolder()
        let disk = folder.path + "/disk"
        try FlashDevice.format(
            path: disk, byteCount: Self.driveBytes, extentBytes: Self.extentBytes,
            identity: DriveIdentity(drive: FlashUUID(seed, 4), store: FlashUUID(1, 1)))
        var source = RandomSource(seed: seed)
        var ledger = FlashLedger()
        for fate in fates {
            for moment in moments {
                let output = try cut(disk, after: moment, fate: fate, workerSeed: source.next(), folder, &result)
                for line in output.split(whereSeparator: \.isNewline) { ledger.note(line) }
                try ledger.inspect(disk, &result)
                result.trials += 1
            }
        }
        result.seconds = Date().timeIntervalSince(began)
        return result
    }

    /// One life of the guest; what its worker said until the cut.
    private func cut(
        _ disk: String, after moment: Int, fate: UInt64, workerSeed: UInt64, _ folder: ScratchFolder,
        _ result: inout CampaignResult
    ) throws -> String {
        let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().path
        let guest = Process()
        guest.executableURL = URL(fileURLWithPath: Self.lab)
        guest.arguments = [
            "--mem", "1024", "--time", "180", "--disk", disk, "--cut-at", "LANDMARK", "--seed", "\(fate)", "--",
            program,
            "flash-worker", "--path", "/dev/nvme0n1", "--seed", "\(workerSeed)", "--operations", "1000000",
            "--landmark", "\(moment)",
        ]
        // To a file: a pipe that somebody has to empty would be one more thing that can wait.
        let path = folder.path + "/output"
        _ = FileManager.default.createFile(atPath: path, contents: nil)
        guest.standardOutput = FileHandle(forWritingAtPath: path)
        try guest.run()
        guest.waitUntilExit()
        let output = String(decoding: try Data(contentsOf: URL(fileURLWithPath: path)), as: UTF8.self)
        switch guest.terminationStatus {
        case 137: result.detected += 1
        case 124: result.hangs += 1
        default:
            FileHandle.standardError.write(Data(output.utf8))
            throw OperatorError(
                "the guest ended with status \(guest.terminationStatus) instead of a power cut", at: Self.lab,
                remedy: "what it said stands above")
        }
        return output
    }
}
