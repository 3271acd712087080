package egress

import (
	"fmt"
	"slices"
	"time"

	"github.com/egret-router/egret/egress/drain"
)

func drainStatus(d drain.Record) *DrainStatus {
	if d.Stage == drain.None {
		return nil
	}
	return &DrainStatus{Stage: d.Stage, Since: d.Since, RefuseAt: d.RefuseAt, Deadline: d.Deadline, Withdrawn: d.Ended, Cut: d.Cut,
		Counted: d.Counted, FlowsBegun: d.Begun, FlowsEnded: d.Gone(), FlowsLeft: d.Left}
}

// drainReason is a drain in a sentence.
func drainReason(d drain.Record) string {
	switch d.Stage {
	case drain.Lowered:
		return "routers are asked to prefer other ways"
	case drain.Refusing:
		return "no new flows are taken; established ones have until " + d.Deadline.Format(time.RFC3339)
	case drain.Withdrawn:
		text := "drained and withdrawn"
		switch {
		case !d.Counted:
			text += "; flows could not be counted"
		case d.Cut:
			text += fmt.Sprintf("; %d flows ended by themselves, %d were cut", d.Gone(), d.Left)
		default:
			text += fmt.Sprintf("; %d flows ended by themselves, %d were left", d.Gone(), d.Left)
		}
		return text
	}
	return ""
}

// drains adds the numbers of flows to a status.
func (res *sweepResult) drains(s *Status) {
	s.Networks = slices.Clone(s.Networks)
	for i := range s.Networks {
		if d := s.Networks[i].Drain; d != nil {
			now := *d
			now.Flows = res.open[s.Networks[i].Name]
			s.Networks[i].Drain = &now
		}
	}
}
