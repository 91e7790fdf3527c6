//! The paths of the event port.

use std::fmt;
use std::str::FromStr;

/// The path that takes events, whatever else is set.
pub const EVENT_PATH: &str = "/hakaru";

/// The path that a load balancer polls.
pub const LIVENESS_PATH: &str = "/ok";

/// What follows the path of events in that of the image of one pixel.
const PIXEL_SUFFIX: &str = ".gif";

/// What follows the path of events in that of the script for pages.
const SCRIPT_SUFFIX: &str = ".js";

/// Most bytes of a path that is set.
const PATH_BYTES_MAX: usize = 255;

/// Another path that takes events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPath(String);

/// A path cannot take events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "accepted: a path such as /track, of / and at most {PATH_BYTES_MAX} letters, digits and -._~!$&'()*+;=:@/, not {LIVENESS_PATH}, \
     and without {PIXEL_SUFFIX} or {SCRIPT_SUFFIX} at its end"
)]
pub struct NotAnEventPath;

impl FromStr for EventPath {
    type Err = NotAnEventPath;

    fn from_str(path: &str) -> Result<Self, NotAnEventPath> {
        // RFC 3986 section 3.3, without escapes, since a target is compared as it was sent, and without the comma, which
        // is between two paths in the variable.
        let may_stand_in_path =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:@/".contains(&byte);
        let is_path = path.len() > 1
            && path.len() <= PATH_BYTES_MAX
            && path.starts_with('/')
            && path.bytes().all(may_stand_in_path);
        let is_free = path != LIVENESS_PATH
            && !path.ends_with(PIXEL_SUFFIX)
            && !path.ends_with(SCRIPT_SUFFIX);
        if is_path && is_free {
            Ok(Self(path.to_owned()))
        } else {
            Err(NotAnEventPath)
        }
    }
}

impl fmt::Display for EventPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// What a path is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// It takes events.
    Events,
    /// It takes an event, and answers with an image of one pixel.
    Pixel,
    /// The script for pages.
    Script,
    /// A load balancer polls it.
    Liveness,
    /// What a load balancer polls unless it is told otherwise.
    Root,
    /// There is no such path.
    Unknown,
}

/// All paths that take events.
#[derive(Debug, Clone, Default)]
pub struct EventPaths {
    /// Those besides [`EVENT_PATH`].
    further: Vec<EventPath>,
}

impl EventPaths {
    /// [`EVENT_PATH`] and these.
    pub fn new(further: Vec<EventPath>) -> Self {
        Self { further }
    }

    /// What a path is for.
    #[inline]
    pub fn route(&self, path: &str) -> Route {
        if path == EVENT_PATH {
            Route::Events
        } else {
            self.other_route(path)
        }
    }

    #[cold]
    fn other_route(&self, path: &str) -> Route {
        match path {
            LIVENESS_PATH => return Route::Liveness,
            // RFC 9110 section 9.3.7: the server as a whole.
            "/" | "*" => return Route::Root,
            _ => {}
        }
        let further = self.further.iter().map(|path| &path.0[..]);
        let mut names = further.chain([EVENT_PATH]);
        let route = names.find_map(|name| match path.strip_prefix(name)? {
            "" => Some(Route::Events),
            PIXEL_SUFFIX => Some(Route::Pixel),
            SCRIPT_SUFFIX => Some(Route::Script),
            _ => None,
        });
        route.unwrap_or(Route::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_pixel_and_its_script() {
        let paths = EventPaths::new(vec!["/t/a".parse().unwrap()]);
        for name in ["/hakaru", "/t/a"] {
            assert_eq!(paths.route(name), Route::Events);
            assert_eq!(paths.route(&format!("{name}.gif")), Route::Pixel);
            assert_eq!(paths.route(&format!("{name}.js")), Route::Script);
            for other in ["/", ".jsx", "x", ".gif/"] {
                assert_eq!(paths.route(&format!("{name}{other}")), Route::Unknown);
            }
        }
        assert_eq!(paths.route("/ok"), Route::Liveness);
        assert_eq!(paths.route("/"), Route::Root);
        assert_eq!(EventPaths::default().route("/t/a"), Route::Unknown);
        assert_eq!(paths.route("/HAKARU"), Route::Unknown);
    }

    #[test]
    fn a_path_that_could_not_be_reached_is_refused() {
        for path in [
            "", "/", "track", "/ok", "/a b", "/a,b", "/a?b", "/a#b", "/%61", "/x.gif", "/x.js",
            "/\u{e9}",
        ] {
            assert_eq!(path.parse::<EventPath>(), Err(NotAnEventPath), "{path}");
        }
        assert!(format!("/{}", "a".repeat(254)).parse::<EventPath>().is_ok());
        assert!(
            format!("/{}", "a".repeat(255))
                .parse::<EventPath>()
                .is_err()
        );
    }
}
