//! Limits the bytes of rows that are kept whole: a limit on their number bounds no memory if a row may have a megabyte.

use super::error::StoreError;

/// Maximum number of bytes of a page or of another result that is not streamed. A page of a thousand ordinary rows has 200 KiB.
pub const RESULT_MAX_BYTES: usize = 16 << 20;

/// The bytes of a result so far.
#[derive(Debug, Default)]
pub struct ResultSize(usize);

impl ResultSize {
    /// Adds bytes.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] beyond [`RESULT_MAX_BYTES`].
    pub fn add(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.0 += bytes;
        if self.0 > RESULT_MAX_BYTES { Err(StoreError::TooLarge { bytes: RESULT_MAX_BYTES }) } else { Ok(()) }
    }
}
