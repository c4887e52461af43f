// Whether an address can be listened on, asked before a server is started.

import CKernel

/// Listens on an address and lets it go at once: throws what a server would meet there (in use, not this machine's, not
/// allowed).
///
/// - Parameter port: 0 asks for any port, which only a wrong address can fail.
public func checkCanListen(on address: String, port: UInt16) throws(SystemError) {
    let descriptor = unsafe hf_tcp_listen(address, port, 1)
    hf_close(try checked(descriptor, "listen on \(address):\(port)"))
}
