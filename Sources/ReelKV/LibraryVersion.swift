/// The version of the library and of everything that comes with it.
public let libraryVersion: StaticString = "0.1.0"
