//! Rows of rows: where the rows of one side of a transfer lie.

/// `planes` planes of `rows` rows of `row` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Address of the first byte.
    pub at: u64,
    /// Bytes of a row.
    pub row: u64,
    /// Rows of a plane.
    pub rows: u64,
    /// Planes.
    pub planes: u64,
    pitch: u64,
    plane: u64,
}

impl Grid {
    /// Strides of 0 mean packed: rows by `unit`s without padding between them, planes right behind each other.
    pub(super) const fn new(
        at: u64,
        (row, rows, planes): (u64, u64, u64),
        (pitch, plane): (u64, u64),
    ) -> Self {
        let pitch = if pitch == 0 { row } else { pitch };
        let plane = if plane == 0 { pitch * rows } else { plane };
        Self { at, row, rows, planes, pitch, plane }
    }

    /// Bytes from the first to one past the last, if row numbers go up to `last`.
    pub(super) const fn span(&self, last: u64) -> u64 {
        (self.planes - 1) * self.plane + last * self.pitch + self.row
    }

    /// Whether no byte belongs to two rows, if row numbers go up to `last`.
    pub(super) const fn disjoint(&self, last: u64) -> bool {
        let rows = last == 0 || self.pitch >= self.row;
        let one_plane = if last == 0 { self.row } else { last * self.pitch + self.row };
        let interleaved = (self.planes - 1) * self.plane + self.row;
        let planes = self.planes == 1 || self.plane >= one_plane;
        let inside = self.plane >= self.row && (last == 0 || self.pitch >= interleaved);
        rows && (planes || inside)
    }

    /// Address of a row.
    pub(super) const fn row_at(&self, plane: u64, row: u64) -> u64 {
        self.at + plane * self.plane + row * self.pitch
    }

    /// Bytes between the start of a row and that of the next.
    pub(super) const fn pitch(&self) -> u64 {
        self.pitch
    }

    /// The grid with rows that reach up to the next one.
    pub(super) const fn padded(mut self) -> Self {
        if self.pitch > self.row {
            self.row = self.pitch;
        }
        self
    }

    /// All bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.row * self.rows * self.planes
    }

    /// The grid as one row, if its rows follow each other without a gap.
    pub(super) const fn contiguous(&self) -> bool {
        let rows = self.rows == 1 || self.pitch == self.row;
        rows && (self.planes == 1 || self.plane == self.row * self.rows)
    }
}
