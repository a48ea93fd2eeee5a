//! The asking end of the local socket.
