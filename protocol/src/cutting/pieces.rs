//! A file read once, in bounded memory, as the pieces that become its chunks.

use std::io::{self, Read};

use super::{Cut, CutKind, Cutter, Following};

/// A buffer of this size serves files of any length.
pub const PIECES_BUFFER_BYTES: usize = 8 << 20;
const _: () = assert!(PIECES_BUFFER_BYTES >= Cutter::WINDOW_BYTES);

/// The bytes of one cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Where they begin in the file.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
    /// What they are.
    pub kind: CutKind,
}

/// Reads a file front to back and hands out its pieces in order.
#[derive(Debug)]
pub struct Pieces<'b, R> {
    source: R,
    buffer: &'b mut Vec<u8>,
    cutter: Cutter,
    /// The bytes in `buffer` that were read and not yet handed out.
    start: usize,
    end: usize,
    /// Where in the file `start` is.
    offset: u64,
    following: Following,
}

impl<'b, R: Read> Pieces<'b, R> {
    /// Pieces of what `source` yields. `buffer` is grown to [`PIECES_BUFFER_BYTES`] and can be used again afterwards.
    pub fn new(source: R, buffer: &'b mut Vec<u8>) -> Self {
        if buffer.len() < PIECES_BUFFER_BYTES {
            buffer.resize(PIECES_BUFFER_BYTES, 0);
        }
        Self { source, buffer, cutter: Cutter::new(), start: 0, end: 0, offset: 0, following: Following::Unknown }
    }

    /// The next piece, `None` at the end of the file.
    ///
    /// # Errors
    /// When the source cannot be read. What was handed out until then is valid.
    #[expect(clippy::should_implement_trait, reason = "pieces borrow the buffer, which iterators cannot express")]
    pub fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        let cut = loop {
            match self.cutter.next_cut(&self.buffer[self.start..self.end], self.following) {
                Some(cut) => break cut,
                None if self.following == Following::Nothing => return Ok(None),
                None => self.fill()?,
            }
        };
        let Cut { length, kind } = cut;
        let (start, offset) = (self.start, self.offset);
        self.start += length;
        self.offset += length as u64;
        Ok(Some(Piece { offset, bytes: &self.buffer[start..start + length], kind }))
    }

    /// Moves what is left to the front and reads until the buffer is full or the source ends.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < self.buffer.len() {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    self.following = Following::Nothing;
                    break;
                }
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
