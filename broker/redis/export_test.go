package redis

// Reasons returns all words of Health.Reason.
func Reasons() []string {
	words := []string{reasonOther}
	for _, c := range causes {
		words = append(words, c.reason)
	}
	return words
}
