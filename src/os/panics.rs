//! Catches panics of libraries.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// The message of a panic of this thread. `None` outside of [`catch`].
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `body`. Returns the message if it panics. Such a panic is not logged; the caller must report it. Values that
/// `body` has changed may be inconsistent, and must not be used any more.
pub fn catch<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let otherwise = take_hook();
        set_hook(Box::new(move |panic| {
            if !is_noted(panic) {
                otherwise(panic);
            }
        }));
    });
    let outer = CAUGHT.replace(Some(String::new()));
    let outcome = catch_unwind(AssertUnwindSafe(body));
    let message = CAUGHT.replace(outer);
    match outcome {
        Ok(value) => Ok(value),
        // The hook has kept the message with its place, which the payload does not have.
        Err(_) => Err(message.unwrap_or_default()),
    }
}

/// Keeps the message of a panic, if [`catch`] catches it. Returns whether it does.
fn is_noted(panic: &PanicHookInfo<'_>) -> bool {
    CAUGHT.with_borrow_mut(|caught| {
        let Some(message) = caught else {
            return false;
        };
        let place = panic.location().map(ToString::to_string);
        let text = panic.payload_as_str().unwrap_or("no message");
        *message = match place {
            Some(place) => format!("{text} ({place})"),
            None => text.to_owned(),
        };
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(catch(|| 7), Ok(7));
        let message = catch(|| {
            assert!(catch(|| panic!("inner")).is_err());
            let none: Vec<u8> = Vec::new();
            none[0]
        });
        let message = message.unwrap_err();
        assert!(message.starts_with("index out of bounds"), "{message}");
        assert!(message.contains("panics.rs"), "{message}");
    }
}
