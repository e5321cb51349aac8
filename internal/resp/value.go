package resp

import (
	"errors"
	"fmt"
)

// An Error is an error reply of the server, such as "NOPERM …" or "ERR …".
type Error string

func (e Error) Error() string { return string(e) }

// ErrType is returned by the methods of Value when the value has another type.
var ErrType = errors.New("redis: a reply of another type")

// A Value is a reply, or an element of one. The zero value is null.
type Value struct {
	kind  byte    // first byte of its header; 0 for null
	text  string  // of strings, errors, doubles, booleans and big numbers
	num   int64   // of ':'
	elems []Value // of arrays, sets and maps; of a map, each key is followed by its value
}

// Err returns an Error if the value is one, and nil otherwise.
func (v Value) Err() error {
	if v.kind == '-' || v.kind == '!' {
		return Error(v.text)
	}
	return nil
}

// IsNull reports whether the value is null.
func (v Value) IsNull() bool { return v.kind == 0 }

// Text returns a string.
func (v Value) Text() (string, error) {
	switch v.kind {
	case '$', '+', '=':
		return v.text, nil
	}
	return "", v.wrongType("a string")
}

// Int returns an integer.
func (v Value) Int() (int64, error) {
	if v.kind == ':' {
		return v.num, nil
	}
	return 0, v.wrongType("an integer")
}

// Array returns the elements of an array or a set. Those of a map are its keys, each followed by
// its value.
func (v Value) Array() ([]Value, error) {
	switch v.kind {
	case '*', '~', '%':
		return v.elems, nil
	}
	return nil, v.wrongType("an array")
}

// Strings returns the elements of an array of strings.
func (v Value) Strings() ([]string, error) {
	elems, err := v.Array()
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(elems))
	for i, e := range elems {
		if texts[i], err = e.Text(); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// Get returns the value of a key of a map, or of an array that alternates between keys and values.
// It is null if there is none.
func (v Value) Get(key string) Value {
	for i := 0; i+1 < len(v.elems); i += 2 {
		if v.elems[i].text == key {
			return v.elems[i+1]
		}
	}
	return Value{}
}

// wrongType returns the server's error if the value is one, and ErrType otherwise.
func (v Value) wrongType(want string) error {
	if err := v.Err(); err != nil {
		return err
	}
	return fmt.Errorf("%w: want %s", ErrType, want)
}
