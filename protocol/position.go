package protocol

// A Position is the place of a message in the history of a room. The zero Position is that of a
// message without one.
type Position struct {
	// Offset counts the messages of the room: 1 for the first of an epoch. As the position of a
	// client it is that of the last message that the client has; 0 if it has none of the epoch.
	Offset uint64 `json:"offset"`

	// Epoch names the log that the offset counts in. A room gets a new epoch when its history
	// was removed or lost. 1 to 32 letters, digits, '-' and '_'.
	Epoch string `json:"epoch"`
}
