//! The image that answers an event: where a page or a mail can load nothing else.

use super::response::Body;

/// A transparent GIF of one pixel.
pub const PIXEL: Body<'static> = Body::Document {
    fields: "Content-Type: image/gif\r\n",
    bytes: b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\0\0\0!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;",
};
