package crd

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kept are the objects of a watch in their order, each with what was made of it. Of
// thousands of pods one event concerns one: the others keep their place and are not
// converted again. A watch never changes an object, it replaces it.
type kept[P keptObject, T any] struct {
	order []P
	made  map[P]*T
}

type keptObject interface {
	comparable
	metav1.Object
}

// look goes through what the watch has now, by namespace and name.
func (k *kept[P, T]) look(w watch, convert func(P) T) iter.Seq2[P, T] {
	k.update(w, convert)
	return func(yield func(P, T) bool) {
		for _, object := range k.order {
			if !yield(object, *k.made[object]) {
				return
			}
		}
	}
}

func (k *kept[P, T]) update(w watch, convert func(P) T) {
	if w.store == nil {
		return
	}
	list := w.store.List()
	made := make(map[P]*T, len(list))
	var fresh []P
	for _, item := range list {
		object, ok := item.(P)
		if !ok {
			continue
		}
		result, known := k.made[object]
		if !known {
			result, fresh = new(T), append(fresh, object)
			*result = convert(object)
		}
		made[object] = result
	}
	old := slices.DeleteFunc(k.order, func(object P) bool { _, there := made[object]; return !there })
	slices.SortFunc(fresh, byName[P])
	k.order, k.made = merged(old, fresh, byName[P]), made
}

func byName[P metav1.Object](a, b P) int {
	return cmp.Or(strings.Compare(a.GetNamespace(), b.GetNamespace()), strings.Compare(a.GetName(), b.GetName()))
}

// merged is both lists, which are sorted, as one.
func merged[T any](a, b []T, compare func(a, b T) int) []T {
	if len(b) == 0 {
		return a
	}
	out := make([]T, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if compare(a[0], b[0]) <= 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}
