import CReelKV
import ReelKV
import struct Synchronization.Atomic
import Locking

/// What a handle can stand for.
protocol HandleObject: AnyObject, Sendable {
    /// How messages call one.
    static var noun: String { get }
}

/// What callers hold of the library's objects: numbers in the shape of pointers, which are never used twice. So a handle that was
/// let go of, of another kind, or of the process that this one was forked from is found out, and never followed.
enum Handles {
    private static let open = Mutex<[Int: any HandleObject]>([:])
    /// The last number that a handle got.
    private static let last = Atomic(0)
    /// A handle's low bits are its number; those above say in which process it was made.
    private static let numberBits = 40

    static func make(_ object: any HandleObject) -> OpaquePointer? {
        let number = last.add(1, ordering: .relaxed).newValue
        open.withLock { $0[number] = object }
        return OpaquePointer(bitPattern: Store.forkCount << numberBits | number)
    }

    /// The object that a handle stands for, which lives at least as long as it is held.
    static func object<Object: HandleObject>(_ handle: OpaquePointer?, _ name: String) throws -> Object {
        let number = try number(of: handle, name, Object.noun)
        guard let found = open.withLock({ $0[number] }) else {
            throw Failure.invalid("'\(name)' is a handle that was let go of: it cannot be used any more")
        }
        guard let object = found as? Object else {
            throw Failure.invalid("'\(name)' must be \(Object.noun), it is \(type(of: found).noun)")
        }
        return object
    }

    /// Ends a handle, and gives what it stood for; nil where it is none, or was made before a fork: what belongs to the parent is
    /// left alone.
    @discardableResult
    static func release<Object: HandleObject>(_ handle: OpaquePointer?, as: Object.Type = Object.self) -> Object? {
        guard let number = try? number(of: handle, "", "") else { return nil }
        return open.withLock { open in
            guard let object = open[number] as? Object else { return nil }
            open[number] = nil
            return object
        }
    }

    /// A handle that was made before a fork is told without a lock, which another thread may have held at that time.
    private static func number(of handle: OpaquePointer?, _ name: String, _ noun: String) throws -> Int {
        guard let handle else { throw Failure.invalid("'\(name)' is NULL, it must be \(noun)") }
        let bits = Int(bitPattern: handle)
        let number = bits & (1 << numberBits - 1)
        guard bits > 0, number > 0, number <= last.load(ordering: .relaxed), bits >> numberBits <= Store.forkCount else {
            throw Failure.invalid("'\(name)' is no handle of this library, it must be \(noun)")
        }
        guard bits >> numberBits == Store.forkCount else {
            throw Failure(
                REELKV_FORKED, "'\(name)' was made before this process was forked: open the store anew in the child process")
        }
        return number
    }
}
