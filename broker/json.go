package broker

import "encoding/json"

// MarshalJSON returns h with Err as its text: encoding/json would make {} of most errors.
func (h Health) MarshalJSON() ([]byte, error) {
	type fields Health
	return json.Marshal(struct {
		fields
		Err string `json:",omitempty"`
	}{fields(h), text(h.Err)})
}

// MarshalJSON returns l with Cause as its text.
func (l Loss) MarshalJSON() ([]byte, error) {
	type fields Loss
	return json.Marshal(struct {
		fields
		Cause string
	}{fields(l), text(l.Cause)})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
