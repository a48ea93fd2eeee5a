//! Panics of the code under test: findings, not the end of the command.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics are remembered instead of printed from now on; with `RUST_BACKTRACE=1` they are printed as well.
pub(crate) fn keep_quiet() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
        let payload = info.payload();
        let words = payload.downcast_ref::<&str>().copied();
        let words = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words");
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            eprintln!("{place}: {words}\n{backtrace}");
        }
        LAST.with(|last| *last.borrow_mut() = format!("{place}: {words}"));
    }));
}

/// What `run` returns, or the place and the words of its panic.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    // Nothing of a world outlives its panic.
    panic::catch_unwind(AssertUnwindSafe(run)).map_err(|_| LAST.with(|last| last.take()))
}
