// Command check reads Chaos Mesh's objects as its server does: strictly, with the types of its API, its words
// for actions, and the defaults and rules of its admission webhooks. What Schedule and Workflow carry must be
// the experiment of the same name.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/chaos-mesh/chaos-mesh/api/v1alpha1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/yaml"
)

// Words are the values that the resource definitions allow and that Go's types do not know.
var words = map[string][]string{
	"PodChaos":     {string(v1alpha1.PodKillAction), string(v1alpha1.PodFailureAction), string(v1alpha1.ContainerKillAction)},
	"NetworkChaos": {string(v1alpha1.NetemAction), string(v1alpha1.DelayAction), string(v1alpha1.LossAction), string(v1alpha1.DuplicateAction), string(v1alpha1.CorruptAction), string(v1alpha1.PartitionAction), string(v1alpha1.BandwidthAction)},
	"IOChaos":      {string(v1alpha1.IoLatency), string(v1alpha1.IoFaults), string(v1alpha1.IoAttrOverride), string(v1alpha1.IoMistake)},
}

var modes = []v1alpha1.SelectorMode{v1alpha1.OneMode, v1alpha1.AllMode, v1alpha1.FixedMode, v1alpha1.FixedPercentMode, v1alpha1.RandomMaxPercentMode}

func empty(kind string) (runtime.Object, error) {
	switch kind {
	case "PodChaos":
		return &v1alpha1.PodChaos{}, nil
	case "NetworkChaos":
		return &v1alpha1.NetworkChaos{}, nil
	case "IOChaos":
		return &v1alpha1.IOChaos{}, nil
	case "StressChaos":
		return &v1alpha1.StressChaos{}, nil
	case "TimeChaos":
		return &v1alpha1.TimeChaos{}, nil
	case "Schedule":
		return &v1alpha1.Schedule{}, nil
	case "Workflow":
		return &v1alpha1.Workflow{}, nil
	}
	return nil, fmt.Errorf("the kind %q is not expected here", kind)
}

func documents(path string) ([][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	var found [][]byte
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		found = append(found, document)
	}
}

func read(document []byte) (runtime.Object, error) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := yaml.Unmarshal(document, &head); err != nil {
		return nil, err
	}
	object, err := empty(head.Kind)
	if err != nil {
		return nil, err
	}
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		return nil, err
	}
	if head.APIVersion != v1alpha1.SchemeGroupVersion.String() {
		return nil, fmt.Errorf("the apiVersion is %s", head.APIVersion)
	}
	if err := worded(head.Kind, specification(object)); err != nil {
		return nil, err
	}
	return object, admitted(object)
}

// Admitted asks the webhooks, which work on a copy: they fill in what was left out.
func admitted(object runtime.Object) error {
	object = object.DeepCopyObject()
	if defaulter, has := object.(admission.CustomDefaulter); has {
		if err := defaulter.Default(context.Background(), object); err != nil {
			return err
		}
	}
	validator, has := object.(admission.CustomValidator)
	if !has {
		return errors.New("has no rules")
	}
	_, err := validator.ValidateCreate(context.Background(), object)
	return err
}

// Specification is the `spec` of an experiment; nil for Schedule and Workflow.
func specification(object runtime.Object) any {
	switch object := object.(type) {
	case *v1alpha1.PodChaos:
		return &object.Spec
	case *v1alpha1.NetworkChaos:
		return &object.Spec
	case *v1alpha1.IOChaos:
		return &object.Spec
	case *v1alpha1.StressChaos:
		return &object.Spec
	case *v1alpha1.TimeChaos:
		return &object.Spec
	}
	return nil
}

// Worded checks action and mode of an experiment.
func worded(kind string, spec any) error {
	if spec == nil {
		return nil
	}
	value := reflect.ValueOf(spec).Elem()
	if allowed, has := words[kind]; has {
		if action := value.FieldByName("Action").String(); !slices.Contains(allowed, action) {
			return fmt.Errorf("the action %q is none of %v", action, allowed)
		}
	}
	if mode := v1alpha1.SelectorMode(value.FieldByName("Mode").String()); !slices.Contains(modes, mode) {
		return fmt.Errorf("the mode %q is none of %v", mode, modes)
	}
	return nil
}

// Carried are the experiments inside a Schedule or a Workflow, by name.
func carried(object runtime.Object) map[string]any {
	found := map[string]any{}
	take := func(name string, embed *v1alpha1.EmbedChaos) {
		if embed == nil {
			return
		}
		value := reflect.ValueOf(embed).Elem()
		for index := range value.NumField() {
			if field := value.Field(index); field.Kind() == reflect.Pointer && !field.IsNil() {
				found[name] = field.Interface()
			}
		}
	}
	switch object := object.(type) {
	case *v1alpha1.Schedule:
		take(object.Name, &object.Spec.ScheduleItem.EmbedChaos)
	case *v1alpha1.Workflow:
		for _, template := range object.Spec.Templates {
			take(template.Name, template.EmbedChaos)
		}
	}
	return found
}

// Undated is the specification without its duration, which a workflow's step says as its deadline.
func undated(spec any) string {
	text, err := yaml.Marshal(spec)
	if err != nil {
		return err.Error()
	}
	fields := map[string]any{}
	if err := yaml.Unmarshal(text, &fields); err != nil {
		return err.Error()
	}
	delete(fields, "duration")
	text, _ = yaml.Marshal(fields)
	return string(text)
}

func main() {
	number, red := 0, false
	experiments, inside := map[string]any{}, map[string]any{}
	complain := func(where string, err error) {
		red = true
		fmt.Printf("%s: %v\n", filepath.Base(where), err)
	}
	for _, path := range os.Args[1:] {
		found, err := documents(path)
		if err != nil {
			complain(path, err)
			continue
		}
		for _, document := range found {
			number++
			object, err := read(document)
			if err != nil {
				complain(path, err)
				continue
			}
			if spec := specification(object); spec != nil {
				experiments[object.(interface{ GetName() string }).GetName()] = spec
			}
			for name, spec := range carried(object) {
				inside[filepath.Base(path)+"/"+name] = spec
			}
		}
	}
	for where, spec := range inside {
		name := filepath.Base(where)
		if own, has := experiments[name]; !has || undated(own) != undated(spec) {
			complain(where, errors.New("is not the experiment of that name"))
		}
	}
	if red || number == 0 {
		os.Exit(1)
	}
	fmt.Printf("%d objects, %d of them inside others\n", number+len(inside), len(inside))
}
